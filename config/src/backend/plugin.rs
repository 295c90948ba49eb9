//! `type = "plugin"`.

use super::Reader;
use crate::settings::{BackendKind, PluginSettings};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BackendKind> {
    let command = reader.written.texts("command").to_vec();
    let Some(program) = command.first() else {
        if reader.is_written("command") {
            // A list that was wrong has been reported; an empty one is right in form.
            if reader.written.own.contains_key("command") {
                reader.mistake("command", "names no program; write [\"/path/to/program\", \"argument\"]");
            }
        } else {
            reader.required("command");
        }
        return None;
    };
    if !program.starts_with('/') {
        reader.mistake("command", "the program must be an absolute path");
        return None;
    }
    let env = reader.written.table("env");
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let name = crate::mistake::shown(name);
        reader.mistake("env", format!("`{name}` is no name of a variable"));
        return None;
    }
    Some(BackendKind::Plugin(PluginSettings { command, env }))
}
