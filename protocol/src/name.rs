//! What may be the name of a secret, or a key, on the socket.

/// ZenML's limit for a secret's name, in characters.
pub const MAX_NAME_CHARS: usize = 255;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty string.
    #[error("an empty name")]
    Empty,
    /// More than [`MAX_NAME_CHARS`] characters.
    #[error("a name of more than 255 characters")]
    TooLong,
    /// NUL, or another control character.
    #[error("a name with a control character")]
    Control,
    /// `.` or `..` as the whole name.
    #[error("`.` and `..` are no names")]
    Dots,
}

/// Accepts any text a ZenML secret may be called, blanks included; refuses what can only be an attack or a mistake.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots),
        _ if name.chars().any(char::is_control) => Err(NameError::Control),
        // Bytes first: counting characters of a long text is not free.
        _ if name.len() > MAX_NAME_CHARS && name.chars().count() > MAX_NAME_CHARS => Err(NameError::TooLong),
        _ => Ok(()),
    }
}

/// Accepts any key: ZenML's keys are JSON object keys and real ones hold tabs and blanks. Only NUL, and the empty
/// key, which no reference can name, are refused.
pub fn check_key(key: &str) -> Result<(), NameError> {
    match key {
        "" => Err(NameError::Empty),
        _ if key.contains('\0') => Err(NameError::Control),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zenml_names_with_blanks_and_dots_are_names() {
        for name in ["simple", "With Spaces", "dots.and-dashes_under", "...", "ключ", "a/b"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_name(&"ü".repeat(255)), Ok(()));
    }

    #[test]
    fn what_can_only_be_a_mistake_is_no_name() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(".."), Err(NameError::Dots));
        assert_eq!(check_name("a\0"), Err(NameError::Control));
        assert_eq!(check_name("a\nb"), Err(NameError::Control));
        assert_eq!(check_name(&"x".repeat(256)), Err(NameError::TooLong));
    }
}
