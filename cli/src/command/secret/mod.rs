//! `secret create|list|get|update|delete|rename|export`: ZenML's words, through the agent's socket.
//!
//! # Layout
//!
//! * `args`: the command line, parsed by hand, since any `--KEY=VALUE` is a pair.
//! * `help`: what `--help` prints.
//! * `input`: values from the command line, files, standard input and a terminal.
//! * `read`: `list`, `get`, `export`.
//! * `write`: `create`, `update`, `rename`, `delete`.

mod args;
mod help;
mod input;
mod read;
mod write;

use std::ffi::OsString;

use args::{Asked, Verb};

pub(in crate::command) use self::write::create_body;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::print;

/// Runs `secret` with the arguments behind the word.
pub(super) fn run(globals: &Globals, args: &[OsString]) -> Result<Exit, Failure> {
    let (verb, args) = match args::parse(args)? {
        Asked::Help(verb) => {
            print(help::text(verb).as_bytes())?;
            return Ok(Exit::Done);
        }
        Asked::Run(verb, args) => (verb, args),
    };
    match verb {
        Verb::Create => write::create(globals, *args),
        Verb::Update => write::update(globals, *args),
        Verb::Rename => write::rename(globals, &args),
        Verb::Delete => write::delete(globals, &args),
        Verb::List => read::list(globals, &args),
        Verb::Get => read::get(globals, &args),
        Verb::Export => read::export(globals, &args),
    }
}
