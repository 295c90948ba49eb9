//! The text of `--help`.

/// Everything about `exec` on one page.
pub(crate) const HELP: &str = "\
Run a command with secrets from the Keyside agent in its environment or in files on memory.

Usage: keyside-exec [OPTIONS] -- CMD [ARG...]

The command starts only if every reference resolved. Then this program becomes the command: same process, same stdio,
nothing left behind. Variables of the inherited environment that are references as a whole, such as {{db.password}},
are resolved in place.

Variables
  -e, --env VAR=TEMPLATE         set VAR; the template may hold {{name.key}} and filters: {{name.key | url}}
  -e, --env VAR                  pass VAR through (for --pristine)
  -s, --secret [PREFIX=]NAME     set a variable for every key of a secret
      --env-file FILE            read VAR=TEMPLATE lines (dotenv)
      --no-resolve-env           leave references in the inherited environment alone
      --pristine                 start from an empty environment

Files, in a directory whose path is in KEYSIDE_FILES
  -f, --file NAME=TEMPLATE       write a file
  -F, --file-env VAR=TEMPLATE    write a file called VAR and set VAR to its path
      --template NAME=SRC        render the file SRC
      --lenient                  leave a malformed {{ in --template files as it stands
      --secret-files NAME        write every key of a secret as NAME/KEY
      --files private            where: a tmpfs that only the command and what it starts see (needs CAP_SYS_ADMIN)
      --files dir                a directory on tmpfs that is removed when the command ends
      --files memfd              inherited descriptors; each file needs a variable (-F), KEYSIDE_FILES is unset
      --files auto               private where it can be had, else dir (default)
      --files-dir PATH           mount at PATH (private; /run/keyside-files), or make the directory in PATH (dir)
      --insecure-files           permit a disk for dir

The command
      --user UID[:GID]           become another user (needs root)
      --chdir DIR                change the working directory

The agent
      --wait 30s                 how long an agent that is not there yet, or cannot reach its back-ends, is tried again
      --timeout 15s              how long one request may take
      --unavailable-exit N       exit with N instead of 125 when trying again later may help
      --report FILE              write failing references as JSON
      --socket PATH              the agent's socket (KEYSIDE_SOCKET)
      --agent auto|socket|embedded
      --agent-uid UID            whom to trust as agent beside root and oneself (KEYSIDE_AGENT_UID)

Looking first
      --dry-run                  print names, sources and targets; ask nobody, start nothing
      --check-only               ask whether the references are there; start nothing
      --profile NAME             take [profile.NAME] of the configuration
      --config FILE              the configuration (KEYSIDE_CONFIG)
  -v, --verbose   -q, --quiet   --log-format text|json   --color auto|always|never   -h, --help   -V, --version

Exit code: that of the command; 125 Keyside failed and the command was not started; 126 not executable; 127 not found.

Examples
  PGPASSWORD='{{db.password}}' keyside-exec -- psql
  keyside-exec -e 'DSN=postgres://{{db.user | url}}:{{db.password | url}}@host/app' -- python train.py
  keyside-exec -s AWS_=aws_keys -F GOOGLE_APPLICATION_CREDENTIALS='{{gcp.key}}' -- python train.py
  keyside-exec --files memfd -F SSL_KEY_FILE='{{tls.key}}' -- ./server
  keyside-exec --template app.conf=app.conf.in -- sh -c 'app --config \"$KEYSIDE_FILES/app.conf\"'
  keyside-exec --dry-run --env-file .env -- python train.py
";
