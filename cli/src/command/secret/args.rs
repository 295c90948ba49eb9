//! The command line of `secret`. Any `--KEY=VALUE` is a pair, so no option parser will do.
//!
//! The names of options always win, before and after NAME. No message quotes an argument that may hold a value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use keyside_protocol::value::SecretValue;

use crate::exit::Failure;
use crate::output::printable;
use crate::table::TableFormat;

/// The word behind `secret`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    List,
    Get,
    Update,
    Delete,
    Rename,
    Export,
}

impl Verb {
    const ALL: [Self; 7] =
        [Self::Create, Self::List, Self::Get, Self::Update, Self::Delete, Self::Rename, Self::Export];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Export => "export",
        }
    }

    /// Only these two set values.
    fn takes_pairs(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

/// Where a value comes from.
pub(super) enum Origin {
    /// It stood on the command line, for everybody to see.
    Inline(SecretValue),
    /// `@file`.
    File(PathBuf),
    /// `@-`.
    Stdin,
}

/// What was written. No `Debug`: inline values are in it.
#[derive(Default)]
pub(super) struct SecretArgs {
    /// NAME; empty only for `list`.
    pub(super) name: String,
    /// `--KEY=VALUE`, in order; no key stands twice.
    pub(super) pairs: Vec<(String, Origin)>,
    /// `-v`.
    pub(super) values: Option<Origin>,
    /// `-i`.
    pub(super) interactive: bool,
    /// `-s`: `user` or `workspace`.
    pub(super) scope: Option<String>,
    /// `-p`.
    pub(super) private: Option<bool>,
    /// `-r`.
    pub(super) remove_keys: Vec<String>,
    /// `-n`.
    pub(super) new_name: Option<String>,
    /// `-y`.
    pub(super) yes: bool,
    /// `--backend`.
    pub(super) backend: Option<String>,
    /// `--format`.
    pub(super) format: TableFormat,
    /// `-f` of `export`.
    pub(super) file: Option<PathBuf>,
    /// `--show` of `get`.
    pub(super) show: bool,
}

/// What the command line asks for.
pub(super) enum Asked {
    /// Help on one word, or on all.
    Help(Option<Verb>),
    /// A command.
    Run(Verb, Box<SecretArgs>),
}

/// One option.
struct Opt {
    long: &'static str,
    short: Option<char>,
    /// Whether the name is an option everywhere, and so never a key.
    reserved: bool,
    verbs: &'static [Verb],
}

const ANY: &[Verb] = &Verb::ALL;
const NAMED: &[Verb] = &[Verb::Create, Verb::Get, Verb::Update, Verb::Delete, Verb::Rename, Verb::Export];
const SETTERS: &[Verb] = &[Verb::Create, Verb::Update];
const TABLES: &[Verb] = &[Verb::Create, Verb::List, Verb::Get, Verb::Update, Verb::Delete, Verb::Rename];

/// The one list of options. `help` and the standard texts aside, a reserved name is no key even where it has no meaning.
const OPTIONS: &[Opt] = &[
    Opt { long: "values", short: Some('v'), reserved: true, verbs: SETTERS },
    Opt { long: "interactive", short: Some('i'), reserved: true, verbs: SETTERS },
    Opt { long: "scope", short: Some('s'), reserved: true, verbs: ANY },
    Opt { long: "private", short: Some('p'), reserved: true, verbs: NAMED },
    Opt { long: "remove-keys", short: Some('r'), reserved: true, verbs: &[Verb::Update] },
    Opt { long: "new-name", short: Some('n'), reserved: true, verbs: &[Verb::Rename] },
    Opt { long: "yes", short: Some('y'), reserved: true, verbs: &[Verb::Delete, Verb::Export] },
    Opt { long: "schema", short: None, reserved: true, verbs: SETTERS },
    Opt { long: "backend", short: None, reserved: true, verbs: ANY },
    Opt { long: "format", short: None, reserved: true, verbs: TABLES },
    Opt { long: "filename", short: Some('f'), reserved: false, verbs: &[Verb::Export] },
    Opt { long: "file", short: None, reserved: false, verbs: &[Verb::Export] },
    Opt { long: "show", short: None, reserved: false, verbs: &[Verb::Get] },
];

impl Opt {
    fn takes_value(&self, verb: Verb) -> bool {
        match self.long {
            "interactive" | "yes" | "show" => false,
            // A flag where a secret is made, a choice everywhere else.
            "private" => verb != Verb::Create,
            _ => true,
        }
    }
}

/// Parses what stands behind `secret`.
pub(super) fn parse(args: &[OsString]) -> Result<Asked, Failure> {
    let Some((word, args)) = args.split_first() else {
        return Err(Failure::usage("`secret` needs a word behind it").hint(words()));
    };
    let word = word.to_string_lossy();
    let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.word() == word) else {
        return match &*word {
            "--help" | "-h" | "help" => {
                Ok(Asked::Help(args.first().and_then(|arg| Verb::ALL.into_iter().find(|verb| arg == verb.word()))))
            }
            "backup" | "restore" => Err(Failure::not_yet(&format!("secret {word}")).hint(words())),
            // What ZenML's own habits bring along.
            "register" => Err(unknown_word(&word).hint("the word is `create`")),
            _ => Err(unknown_word(&word).hint(words())),
        };
    };
    let mut reader = Reader { verb, rest: args.iter(), args: SecretArgs::default(), names: Vec::new() };
    let read = reader.read().and_then(|wants_help| match wants_help {
        true => Ok(Asked::Help(Some(verb))),
        false => reader.finish().map(|args| Asked::Run(verb, Box::new(args))),
    });
    read.map_err(|mut failure| {
        failure.hint.get_or_insert_with(|| format!("see `keyside secret {} --help`", verb.word()));
        failure
    })
}

fn unknown_word(word: &str) -> Failure {
    Failure::usage(format!("`secret {}` is no command", printable(word)))
}

fn words() -> String {
    let words: Vec<_> = Verb::ALL.iter().map(|verb| verb.word()).collect();
    format!("one of {}; `keyside secret --help` says more", words.join(", "))
}

struct Reader<'a> {
    verb: Verb,
    rest: std::slice::Iter<'a, OsString>,
    args: SecretArgs,
    names: Vec<&'a OsStr>,
}

impl<'a> Reader<'a> {
    /// Reads all arguments; true means that help is wanted.
    fn read(&mut self) -> Result<bool, Failure> {
        while let Some(arg) = self.rest.next() {
            let bytes = arg.as_bytes();
            if bytes == b"--" {
                self.names.extend(self.rest.by_ref().map(OsString::as_os_str));
            } else if bytes == b"--help" || bytes == b"-h" {
                return Ok(true);
            } else if let Some(long) = bytes.strip_prefix(b"--") {
                self.long(long)?;
            } else if bytes.len() > 1 && bytes[0] == b'-' {
                self.short(&bytes[1..])?;
            } else {
                self.names.push(arg);
            }
        }
        Ok(false)
    }

    fn long(&mut self, text: &'a [u8]) -> Result<(), Failure> {
        let equals = text.iter().position(|&byte| byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let name = std::str::from_utf8(name).map_err(|_| Failure::usage("a key that is not UTF-8"))?;
        let verb = self.verb;
        let known = OPTIONS.iter().find(|opt| opt.long == name && (opt.reserved || opt.verbs.contains(&verb)));
        match (known, value) {
            (Some(opt), _) if !opt.verbs.contains(&verb) => {
                let failure = Failure::usage(format!("`--{name}` is no option of `secret {}`", verb.word()));
                Err(if verb.takes_pairs() { failure.hint("a key of that name is set with -v") } else { failure })
            }
            (Some(opt), value) => self.option(opt, value.map(OsStr::from_bytes)),
            (None, Some(value)) if verb.takes_pairs() => self.pair(name, value),
            (None, None) if verb.takes_pairs() => {
                Err(Failure::usage(format!("`--{}` is no option, and a pair needs `=`", printable(name)))
                    .hint("write --KEY=VALUE, --KEY=@file, or --KEY=@- for standard input"))
            }
            (None, _) => {
                Err(Failure::usage(format!("`--{}` is no option of `secret {}`", printable(name), verb.word()))
                    .hint(format!("see `keyside secret {} --help`", verb.word())))
            }
        }
    }

    /// One letter or several flags in a row; the first that takes a value takes the rest.
    fn short(&mut self, letters: &'a [u8]) -> Result<(), Failure> {
        let mut at = 0;
        while at < letters.len() {
            let letter = char::from(letters[at]);
            at += 1;
            let known = OPTIONS.iter().find(|opt| opt.short == Some(letter) && opt.verbs.contains(&self.verb));
            let Some(opt) = known else {
                return Err(Failure::usage(format!(
                    "`-{}` is no option of `secret {}`",
                    letter.escape_default(),
                    self.verb.word()
                ))
                .hint(format!("see `keyside secret {} --help`", self.verb.word())));
            };
            if opt.takes_value(self.verb) {
                let attached = (at < letters.len()).then(|| {
                    let rest = &letters[at..];
                    OsStr::from_bytes(rest.strip_prefix(b"=").unwrap_or(rest))
                });
                return self.option(opt, attached);
            }
            self.option(opt, None)?;
        }
        Ok(())
    }

    fn option(&mut self, opt: &Opt, attached: Option<&'a OsStr>) -> Result<(), Failure> {
        let name = opt.long;
        let twice = || Failure::usage(format!("`--{name}` stands twice"));
        if !opt.takes_value(self.verb) {
            let on = match attached {
                None => true,
                Some(text) => boolean(name, text)?,
            };
            match name {
                "interactive" => self.args.interactive = on,
                "yes" => self.args.yes = on,
                "show" => self.args.show = on,
                _ => self.args.private = Some(on),
            }
            return Ok(());
        }
        let value = match attached {
            Some(value) => value,
            None => self.rest.next().ok_or_else(|| Failure::usage(format!("`--{name}` needs a value")))?,
        };
        if name == "values" {
            if self.args.values.is_some() {
                return Err(twice());
            }
            self.args.values = Some(origin(value.as_bytes()));
            return Ok(());
        }
        if matches!(name, "file" | "filename") {
            if self.args.file.replace(value.into()).is_some() {
                return Err(twice());
            }
            return Ok(());
        }
        let text = value.to_str().ok_or_else(|| Failure::usage(format!("the value of `--{name}` is not UTF-8")))?;
        let slot = match name {
            "private" => {
                if self.args.private.replace(boolean(name, value)?).is_some() {
                    return Err(twice());
                }
                return Ok(());
            }
            "remove-keys" => {
                self.args.remove_keys.push(text.to_owned());
                return Ok(());
            }
            "format" => {
                self.args.format = TableFormat::parse(text)?;
                return Ok(());
            }
            "schema" => return Err(Failure::not_yet("--schema").hint("give the keys as pairs: --KEY=VALUE")),
            "scope" => {
                if !["user", "workspace"].contains(&text) {
                    return Err(Failure::usage("`--scope` is `user` or `workspace`"));
                }
                &mut self.args.scope
            }
            "new-name" => &mut self.args.new_name,
            _ => &mut self.args.backend,
        };
        if slot.replace(text.to_owned()).is_some() {
            return Err(twice());
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
        if key.is_empty() {
            return Err(Failure::usage("a pair without a key").hint("write --KEY=VALUE"));
        }
        check_key(key)?;
        if self.args.pairs.iter().any(|(known, _)| known == key) {
            return Err(Failure::usage(format!("the key `{}` stands twice", printable(key))));
        }
        self.args.pairs.push((key.to_owned(), origin(value)));
        Ok(())
    }

    fn finish(mut self) -> Result<SecretArgs, Failure> {
        let word = self.verb.word();
        let usage = |what: &str| {
            Failure::usage(format!("`secret {word}` {what}")).hint(format!("see `keyside secret {word} --help`"))
        };
        match (self.verb, self.names.as_slice()) {
            (Verb::List, []) => {}
            (Verb::List, _) => return Err(usage("takes no name")),
            (_, []) => return Err(usage("needs the name of a secret")),
            (_, [name]) => {
                self.args.name = name.to_str().ok_or_else(|| usage("needs a name that is UTF-8"))?.to_owned();
                if let Err(error) = keyside_protocol::name::check_name(&self.args.name) {
                    return Err(Failure::usage(format!("{error} is no name of a secret"))
                        .hint("a name has 1 to 255 characters, none of them a control character"));
                }
            }
            (verb, _) if verb.takes_pairs() => {
                return Err(usage("takes one name").hint("a pair is one argument: --KEY=VALUE"));
            }
            _ => return Err(usage("takes one name")),
        }
        let args = &self.args;
        match self.verb {
            Verb::Create if args.name == "name" => return Err(usage("refuses the name `name`, as ZenML does")),
            Verb::Create if args.pairs.is_empty() && args.values.is_none() && !args.interactive => {
                return Err(usage("needs at least one pair").hint("--KEY=VALUE, -v @file, or -i to be asked"));
            }
            Verb::Create if args.private == Some(true) && args.scope.as_deref() == Some("workspace") => {
                return Err(usage("cannot be private and of the workspace at once"));
            }
            Verb::Rename if args.new_name.is_none() => return Err(usage("needs `-n NEW-NAME`")),
            Verb::Rename if args.new_name.as_deref() == Some("name") => {
                return Err(usage("refuses the name `name`, as ZenML does"));
            }
            Verb::Update => {
                let nothing = args.pairs.is_empty()
                    && args.values.is_none()
                    && args.remove_keys.is_empty()
                    && args.private.is_none()
                    && !args.interactive;
                if nothing {
                    return Err(
                        usage("has nothing to change").hint("--KEY=VALUE, -r KEY, -v @file, -i or -p true|false")
                    );
                }
                if let Some((key, _)) = args.pairs.iter().find(|(key, _)| args.remove_keys.contains(key)) {
                    return Err(usage(&format!("cannot set and remove `{}` at once", printable(key))));
                }
            }
            _ => {}
        }
        if let Some(new_name) = &args.new_name
            && let Err(error) = keyside_protocol::name::check_name(new_name)
        {
            return Err(Failure::usage(format!("{error} is no name of a secret"))
                .hint("a name has 1 to 255 characters, none of them a control character"));
        }
        Ok(self.args)
    }
}

/// Refuses the one key that ZenML's command line refuses, and what no secret can hold.
pub(super) fn check_key(key: &str) -> Result<(), Failure> {
    if key == "name" {
        return Err(
            Failure::usage("a secret cannot have a key called `name`, as in ZenML").hint("give the key another name")
        );
    }
    keyside_protocol::name::check_key(key)
        .map_err(|_| Failure::usage("a key that is empty or holds NUL").hint("write --KEY=VALUE"))
}

fn boolean(name: &str, text: &OsStr) -> Result<bool, Failure> {
    match text.to_str().map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "1" | "yes") => Ok(true),
        Some("false" | "0" | "no") => Ok(false),
        _ => Err(Failure::usage(format!("`--{name}` is `true` or `false`"))),
    }
}

/// `@file`, `@-`, `@@x` for the text `@x`, or the text itself.
fn origin(bytes: &[u8]) -> Origin {
    match bytes {
        [b'@', b'-'] => Origin::Stdin,
        [b'@', b'@', ..] => Origin::Inline(SecretValue::copy_of(&bytes[1..])),
        [b'@', path @ ..] => Origin::File(OsString::from_vec(path.to_vec()).into()),
        text => Origin::Inline(SecretValue::copy_of(text)),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
