//! What stands in the memory of a running process, read as root reads it: `/proc/PID/mem`, mapping by mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::canary::Canary;

/// Bytes looked at in one go, and how many of the ones before are looked at again, so that nothing hides at a seam.
const STEP: usize = 1 << 20;
const SEAM: usize = 1 << 10;

/// Returns a line for each mapping in which `canary`, a half of it, or a form of either stands: the form and the place.
///
/// Memory that nobody can read through /proc (`memfd_secret`) is not looked at. What the process only reads from a file
/// cannot hold a value and is left out too.
///
/// Errors: this process may not look into that one, or it has ended.
pub fn places_of(canary: &Canary, pid: u32) -> io::Result<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut places = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let bounds =
            range.split_once('-').map(|(start, end)| (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)));
        let (Some((Ok(start), Ok(end))), true) = (bounds, rights.starts_with("rw")) else { continue };
        if let Some(form) = form_in(canary, &memory, start, end) {
            places.push(format!("{form} in {line}"));
        }
    }
    Ok(places)
}

fn form_in(canary: &Canary, memory: &File, start: u64, end: u64) -> Option<&'static str> {
    let mut bytes = vec![0; STEP + SEAM];
    let mut kept = 0;
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).map_or(STEP, |left| left.min(STEP));
        // Unreadable: none of the rest of such a mapping can be read.
        let count = memory.read_at(&mut bytes[kept..kept + wanted], at).ok().filter(|count| *count > 0)?;
        let filled = kept + count;
        // Most pages were never written.
        if bytes[..filled].iter().any(|byte| *byte != 0)
            && let Some(form) = canary.found_in(&bytes[..filled])
        {
            return Some(form);
        }
        let seam = filled.min(SEAM);
        bytes.copy_within(filled - seam..filled, 0);
        kept = seam;
        at += count as u64;
    }
    None
}

/// Returns a number from `/proc/PID/status`, such as `VmLck` in kB.
pub fn status(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
