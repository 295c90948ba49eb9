//! What the kernel takes in one execve, checked before it so that the variable can be named.
//!
//! Source: execve(2), "Limits on size of arguments and environment"; fs/exec.c, `bprm_stack_limits`.

use crate::report::Complaint;

/// The longest single string with its NUL: MAX_ARG_STRLEN, 32 pages of 4 KiB (the smallest page there is).
pub(crate) const MAX_STRING: usize = 131_072;
/// Three quarters of the kernel's default stack.
const MAX_WHOLE: u64 = 6 * 1024 * 1024;
/// What is always allowed, however small the stack limit is.
const MIN_WHOLE: u64 = 131_072;

/// One string of an execve: what a person calls it, and its length without NUL.
pub(crate) struct Sized {
    pub(crate) called: String,
    pub(crate) length: usize,
}

/// Returns the bytes that arguments and environment may take together under a stack limit (none: unlimited).
fn whole_limit(stack: Option<u64>) -> u64 {
    MAX_WHOLE.min(stack.map_or(u64::MAX, |bytes| bytes / 4)).max(MIN_WHOLE)
}

/// Complains about every string over the kernel's limit, or about the whole. `ours` are the strings that can be
/// blamed: what was resolved. `others` is the number and the bytes (without NULs) of all further strings.
pub(crate) fn check(ours: &[Sized], others: (usize, usize)) -> Vec<Complaint> {
    let too_long: Vec<_> = ours.iter().filter(|string| string.length + 1 > MAX_STRING).collect();
    if !too_long.is_empty() {
        let complaint = |string: &&Sized| {
            Complaint::new(
                format!(
                    "{} is too large for the environment: {} bytes with its name, the kernel takes {}",
                    string.called,
                    string.length,
                    MAX_STRING - 1
                ),
                "hand it over as a file: --file NAME=TEMPLATE, or --file-env VAR=TEMPLATE",
            )
        };
        return too_long.iter().map(complaint).collect();
    }
    let count = ours.len() + others.0;
    let bytes = ours.iter().map(|string| string.length).sum::<usize>() + others.1;
    let whole = (bytes + count + count * size_of::<usize>()) as u64;
    // The stack limit is asked for only where it can matter.
    if whole <= MIN_WHOLE {
        return Vec::new();
    }
    let limit = whole_limit(rustix::process::getrlimit(rustix::process::Resource::Stack).current);
    match ours.iter().max_by_key(|string| string.length) {
        _ if whole <= limit => Vec::new(),
        Some(largest) => vec![Complaint::new(
            format!(
                "arguments and environment are too large together: {whole} bytes, the kernel takes {limit}; the largest \
                 of ours is {} with {} bytes",
                largest.called, largest.length
            ),
            "hand large values over as files: --file NAME=TEMPLATE, or --file-env VAR=TEMPLATE",
        )],
        None => vec![too_large_whole()],
    }
}

/// The complaint for an execve that is too large for a reason that we cannot name better.
pub(crate) fn too_large_whole() -> Complaint {
    Complaint::new(
        "arguments and environment are too large together for the kernel",
        "hand large values over as files, pass fewer arguments, or raise the stack limit (ulimit -s)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(length: usize) -> Sized {
        Sized { called: "BIG".to_owned(), length }
    }

    #[test]
    fn a_string_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        assert!(check(&[string(MAX_STRING - 1)], (0, 0)).is_empty());
        let complaints = check(&[string(MAX_STRING), string(MAX_STRING + 5)], (0, 0));
        assert_eq!(complaints.len(), 2);
        assert!(complaints[0].what.contains("BIG") && complaints[0].what.contains("131072"), "{complaints:?}");
    }

    #[test]
    fn the_whole_is_bounded_by_a_quarter_of_the_stack_and_by_six_mebibytes() {
        assert_eq!(whole_limit(Some(8 << 20)), 2 << 20);
        assert_eq!(whole_limit(None), 6 << 20);
        assert_eq!(whole_limit(Some(4096)), MIN_WHOLE);
    }
}
