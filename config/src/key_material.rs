//! Secrets that a setting points at: a variable, a file or a systemd credential.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::file::{self, ReadError, Trust};
use crate::settings::SecretText;

/// Largest key file in bytes.
const MAX_KEY_FILE_BYTES: usize = 64 << 10;

/// Takes the key from a variable; the error says what is wrong.
pub(crate) fn from_variable(setting: &str, name: &str, environment: &Environment) -> Result<SecretText, String> {
    // The name goes into messages, so what might be a key pasted in its place stops here, unquoted.
    if !is_variable_name(name) {
        return Err(format!("`{setting}` holds the name of a variable, such as KEYSIDE_STORE_KEY, not the key itself"));
    }
    let value = match environment.text(name) {
        Ok(Some(value)) => value,
        Ok(None) => return Err(format!("the variable {name} is not set")),
        Err(_) => return Err(format!("the variable {name} is not UTF-8")),
    };
    if value.is_empty() {
        return Err(format!("the variable {name} is empty"));
    }
    Ok(SecretText {
        text: Zeroizing::new(value.to_owned()),
        origin: format!("`{setting}` (variable {name})"),
        file: None,
    })
}

/// Takes the key from a file, without one newline at its end, and adds the file to `files`; the error says what is
/// wrong.
pub(crate) fn from_file(setting: &str, path: &Path, files: &mut Vec<PathBuf>) -> Result<SecretText, String> {
    files.push(path.to_owned());
    Ok(SecretText {
        text: text_of(path)?,
        origin: format!("`{setting}` (file {})", path.display()),
        file: Some(path.to_owned()),
    })
}

/// Reads a secret from a file, without one newline at its end; the error says what is wrong.
pub(crate) fn text_of(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = file::read(path, MAX_KEY_FILE_BYTES, Trust::Any).map_err(|error| {
        let shown = path.display();
        match error {
            ReadError::Absent => format!("there is no file {shown}"),
            ReadError::NotPermitted => format!("the permissions do not allow reading {shown}"),
            ReadError::Other(what) => format!("{shown}: {what}"),
        }
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Takes the key from a credential that systemd passed, likewise.
pub(crate) fn from_credential(
    setting: &str,
    name: &str,
    environment: &Environment,
    files: &mut Vec<PathBuf>,
) -> Result<SecretText, String> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(format!("`{setting}` holds the name of a credential, without a slash"));
    }
    let directory = environment
        .get("CREDENTIALS_DIRECTORY")
        .map(Path::new)
        .filter(|directory| directory.is_absolute())
        .ok_or("the variable CREDENTIALS_DIRECTORY is not set: systemd passed no credentials")?;
    from_file(setting, &directory.join(name), files)
}

/// Tells a variable's name from a key that was pasted where the name belongs: a name keeps to one case, and has an
/// underscore or is short and in capitals.
fn is_variable_name(text: &str) -> bool {
    let has = |class: fn(&u8) -> bool| text.bytes().any(|byte| class(&byte));
    let (lower, upper) = (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|character: char| character.is_ascii_digit())
        && lower != upper
        && text.len() <= 128
        && (text.contains('_') || (upper && text.len() <= 24))
}
