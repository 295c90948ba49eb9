//! `type = "local"`.

use std::path::PathBuf;

use super::Reader;
use crate::settings::{BackendKind, LocalSettings};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let path = PathBuf::from(reader.required("path")?);
    let Some(directory) = path.parent().filter(|_| path.file_name().is_some()) else {
        let what = format!("`path` in [backend.{}] names no file", reader.name);
        reader.report.mistake_at(&["backend", reader.name, "path"], what);
        return None;
    };
    Some(BackendKind::Local(LocalSettings { base: directory.to_owned(), path }))
}
