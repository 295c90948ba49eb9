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
    // A bare name is looked up on the agent's own PATH, as everywhere; a relative path would depend on where it was started.
    if program.is_empty() || program.contains('/') && !program.starts_with('/') {
        reader.mistake("command", "the program must be an absolute path, or a name that is looked up on PATH");
        return None;
    }
    if command.iter().any(|part| part.contains('\0')) {
        reader.mistake("command", "an argument holds a NUL byte, which no program can be given");
        return None;
    }
    let env = reader.written.table("env");
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let name = crate::mistake::shown(name);
        reader.mistake("env", format!("`{name}` is no name of a variable"));
        return None;
    }
    if let Some((name, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
        let name = crate::mistake::shown(name);
        reader.mistake("env", format!("the value of `{name}` holds a NUL byte"));
        return None;
    }
    Some(BackendKind::Plugin(PluginSettings { command, env }))
}
