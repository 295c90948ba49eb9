//! What `secret --help` and its words print.

use super::args::Verb;

/// Returns the help on one word, or on all.
pub(super) fn text(verb: Option<Verb>) -> String {
    match verb {
        None => ALL.to_owned(),
        Some(Verb::Create) => with_sources(CREATE),
        Some(Verb::Update) => with_sources(UPDATE),
        Some(Verb::List) => LIST.to_owned(),
        Some(Verb::Get) => GET.to_owned(),
        Some(Verb::Delete) => DELETE.to_owned(),
        Some(Verb::Rename) => RENAME.to_owned(),
        Some(Verb::Export) => EXPORT.to_owned(),
    }
}

fn with_sources(text: &str) -> String {
    format!("{text}{SOURCES}")
}

const ALL: &str = "\
Create, list, show, change and delete secrets, in ZenML's words

Usage: keyside [OPTIONS] secret <WORD> ...

Words:
  create NAME --KEY=VALUE ...   make a secret
  list                          all names, without values
  get NAME                      one secret; its values only with --show
  update NAME --KEY=VALUE ...   set or remove keys
  delete NAME                   delete a secret
  rename NAME -n NEW-NAME       give it another name
  export NAME                   write it to a YAML file

Examples:
  keyside secret create mlflow_secret --username=admin --password=@password.txt
  keyside secret list
  keyside secret update mlflow_secret --password=@new.txt
  keyside secret delete mlflow_secret -y

`keyside secret WORD --help` says more. A back-end is written to only where the agent's
configuration says `writable = true`.
";

const CREATE: &str = "\
Make a secret

Usage: keyside secret create NAME --KEY=VALUE ... [OPTIONS]

Options:
  -v, --values JSON|@FILE       pairs as a JSON object, or a JSON or YAML file of them
  -i, --interactive             ask for keys and values; values are not shown
  -p, --private                 only for the agent's configured user
  -s, --scope user|workspace    the same in ZenML's older words
      --backend NAME            where to, when there are several
      --format FORMAT           how to print the answer: table, json, yaml, csv

Examples:
  keyside secret create mlflow_secret --username=admin --password=@password.txt
  keyside secret create db -i
  printf %s \"$PASSWORD\" | keyside secret create db --password=@-
  keyside secret create db -v @db.yaml
";

const UPDATE: &str = "\
Set or remove keys of a secret; the others stay

Usage: keyside secret update NAME [--KEY=VALUE ...] [OPTIONS]

Options:
  -r, --remove-keys KEY         remove KEY; repeat for more
  -v, --values JSON|@FILE       pairs as a JSON object, or a JSON or YAML file of them
  -i, --interactive             ask for keys and values; values are not shown
  -p, --private true|false      whether it is to be private from now on
  -s, --scope user|workspace    which one, when two scopes have the name
      --backend NAME            which one, when several back-ends have it
      --format FORMAT           how to print the answer: table, json, yaml, csv

Examples:
  keyside secret update mlflow_secret --password=@password.txt
  keyside secret update mlflow_secret -r token -r user
  keyside secret update mlflow_secret -p true
";

const SOURCES: &str = "
Values:
  --KEY=VALUE     on the command line, where every user of the machine can read it
  --KEY=@FILE     the bytes of FILE, a last line break included; at most 64 KiB
  --KEY=@-        the bytes of standard input
  --KEY=@@TEXT    the text @TEXT
Every `--X=Y` whose X is no option is a pair; a key that is called like an option is set with -v.
";

const LIST: &str = "\
List all secrets, without values

Usage: keyside secret list [OPTIONS]

Options:
      --backend NAME            only this back-end
  -s, --scope user|workspace    only this scope
      --format FORMAT           table, json, yaml, csv

Examples:
  keyside secret list
  keyside secret list --format json
";

const GET: &str = "\
Show a secret: where it is, its keys, and with --show its values

Usage: keyside secret get NAME [OPTIONS]

Options:
      --show                    print the values too
  -p, --private true|false      only the private or only the public one
  -s, --scope user|workspace    the same in ZenML's older words
      --backend NAME            only this back-end
      --format FORMAT           table, json, yaml, csv

Examples:
  keyside secret get mlflow_secret
  keyside secret get mlflow_secret --show --format yaml

One value by itself: `keyside get NAME.KEY`.
";

const DELETE: &str = "\
Delete a secret

Usage: keyside secret delete NAME [OPTIONS]

Options:
  -y, --yes                     do not ask
  -p, --private true|false      only the private or only the public one
  -s, --scope user|workspace    the same in ZenML's older words
      --backend NAME            which one, when several back-ends have it
      --format FORMAT           how to print the answer: table, json, yaml, csv

Examples:
  keyside secret delete mlflow_secret
  keyside secret delete mlflow_secret -y
";

const RENAME: &str = "\
Give a secret another name

Usage: keyside secret rename NAME -n NEW-NAME [OPTIONS]

Options:
  -n, --new-name NEW-NAME       the new name
  -p, --private true|false      only the private or only the public one
  -s, --scope user|workspace    the same in ZenML's older words
      --backend NAME            which one, when several back-ends have it
      --format FORMAT           how to print the answer: table, json, yaml, csv

Example:
  keyside secret rename mlflow_secret -n mlflow_secret_old
";

const EXPORT: &str = "\
Write a secret with its values to a YAML file that only you can read

Usage: keyside secret export NAME [OPTIONS]

Options:
  -f, --filename FILE           the file; `-` is standard output [default: NAME.yaml]
  -y, --yes                     replace the file if it is there
  -p, --private true|false      only the private or only the public one
  -s, --scope user|workspace    the same in ZenML's older words
      --backend NAME            only this back-end

Examples:
  keyside secret export mlflow_secret
  keyside secret export mlflow_secret -f copy.yaml
  keyside secret create copy -v @mlflow_secret.yaml
";
