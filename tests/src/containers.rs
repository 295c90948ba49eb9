//! Containers: the project's images, built and run by podman in a room of its own.
//!
//! The room is a mount and a process namespace. In it podman finds its storage inside the scenario's home and an empty
//! `/run`, so it neither sees nor changes what the machine's own podman has; and when the scenario ends, in whatever way,
//! the kernel ends every process and every mount in the room. No image registry is asked: the base image is imported from
//! the archive of `peers/install-containers.sh`, and the programs are the ones that were just built.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::home::Home;
use crate::programs::{built, is_root, package, search_path};
use crate::remark::remark;
use crate::run::{Ended, Run};

/// The image of the agent.
pub const AGENT: &str = "localhost/keyside:test";
/// The image of the wrapper alone.
pub const EXEC: &str = "localhost/keyside-exec:test";
/// A minimal Debian: what the agent's image is made from, and an image for steps, which has nothing of Keyside.
pub const BASE: &str = "localhost/base:test";

/// What a careful user gives every container.
pub const RESTRICTED: [&str; 7] =
    ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"];

/// The room's first process: it reaps what the containers leave behind, and its end is the end of all of them.
const ROOM: &str = r#"
mkdir -p /var/lib/containers "$1"
mount --bind "$1" /var/lib/containers
mount -t tmpfs -o mode=755 keyside-room /run
echo ready
exec catatonit -P
"#;

/// Some machines allow fewer descriptors and processes than podman asks for, crun refuses hybrid cgroups, and locks in
/// /dev/shm would be shared with the machine's own podman.
const CONFIGURATION: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"#;

/// A room for containers, with the project's images in it.
pub struct Containers<'h> {
    home: &'h Home,
    room: Child,
}

impl<'h> Containers<'h> {
    /// Makes the room and builds the images. None, and a word on stderr, where that cannot be done.
    pub fn start(home: &'h Home) -> Option<Self> {
        let base = match prerequisites() {
            Ok(base) => base,
            Err(why) => {
                remark(format_args!("skipped: {why}"));
                return None;
            }
        };
        home.write("containers.conf", CONFIGURATION);
        // The images' files, and the build's; all else that podman keeps, logs and descriptions, is searched.
        home.holds_values(storage(home).join("storage/overlay"));
        let mut room = Command::new("setpriv")
            // Whatever ends this test ends the room.
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh", "-euc", ROOM, "room"])
            .arg(storage(home))
            .env_clear()
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv starts");
        let mut line = String::new();
        BufReader::new(room.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        let containers = Self { home, room };
        if line != "ready\n" {
            remark("skipped: no mount and process namespace can be had for containers");
            return None;
        }
        let info = containers.podman(["info"]).end();
        if info.code() != Some(0) {
            remark(format_args!("skipped: podman does not work here: {}", info.stderr));
            return None;
        }
        containers.build(&base);
        Some(containers)
    }

    /// Prepares a run of podman in the room.
    pub fn podman<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'h> {
        self.in_room(["podman"]).args(args)
    }

    /// Prepares a run of another program of this machine in the room.
    pub fn in_room<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run<'h> {
        let namespaces = format!("/proc/{}/ns", self.room.id());
        Run::new(self.home, "/usr/bin/nsenter".into())
            .args([format!("--mount={namespaces}/mnt"), format!("--pid={namespaces}/pid_for_children")])
            .args(args)
            .env("PATH", path())
            .env("CONTAINERS_CONF", self.home.join("containers.conf"))
            .without("XDG_RUNTIME_DIR")
    }

    /// Runs podman to its end, which is expected to be a good one, and returns its words.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.podman(args).end().expect_code(0).text().trim().to_owned()
    }

    /// Runs a container to its end under [`RESTRICTED`]; it is kept, for [`Self::remember_all`].
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.podman(["run"]).args(RESTRICTED).args(args).end()
    }

    /// Notes what podman knows of every container, to be searched in the end: its log and its description.
    pub fn remember_all(&self) -> usize {
        let names = self.ok(["ps", "--all", "--quiet"]);
        for name in names.lines() {
            for command in ["logs", "inspect"] {
                self.ok([command, name]);
            }
        }
        names.lines().count()
    }

    /// Imports the base and builds both images: the shipped Dockerfile, with programs that are built already in the place
    /// of the stages that compile them.
    fn build(&self, base: &Path) {
        let search = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.ok([
            OsStr::new("import"),
            "--quiet".as_ref(),
            "--change".as_ref(),
            search.as_ref(),
            base.as_ref(),
            BASE.as_ref(),
        ]);
        let agent = self.context("build-agent", "keyside", &built("keyside"));
        let exec = self.context("build-exec", "keyside-exec", &static_wrapper().expect("looked for before"));
        let project = package().join("..").canonicalize().expect("the project");
        for (image, target) in [(AGENT, "agent"), (EXEC, "exec")] {
            // Docker's format: the other one has no health check.
            self.podman(["build", "--quiet", "--pull=never", "--network=none", "--format=docker"])
                .args(["--build-arg", &format!("BASE={BASE}"), "--build-context", &agent, "--build-context", &exec])
                .args(["--target", target, "--tag", image])
                .arg(&project)
                .end()
                .expect_code(0);
        }
    }

    /// Lays `program` where a stage of the Dockerfile would have put it, and returns the argument that says so.
    fn context(&self, stage: &str, name: &str, program: &Path) -> String {
        // Programs are large, and not to be searched: in the home, `bin` is the place for them.
        let directory = self.home.join("bin").join(stage);
        let copy = directory.join("out").join(name);
        fs::create_dir_all(copy.parent().expect("it has one")).expect("a directory");
        fs::copy(program, &copy).expect("room for a copy");
        fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("ours");
        format!("{stage}={}", directory.display())
    }
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        // Orderly, so that no control group is left behind; what that leaves ends with the room.
        for kind in ["pod", "container"] {
            let _ = self.podman([kind, "rm", "--all", "--force", "--time", "0"]).command().output();
        }
        let _ = self.room.kill();
        let _ = self.room.wait();
    }
}

/// Returns the archive of the base image, or says what is missing.
fn prerequisites() -> Result<PathBuf, String> {
    if !is_root() {
        return Err("only root can start containers with users of their own".into());
    }
    for program in ["podman", "runc", "catatonit", "unshare", "nsenter", "setpriv"] {
        if !path().split(':').any(|directory| Path::new(directory).join(program).is_file()) {
            return Err(format!("{program} is not installed (tests/peers/install-containers.sh)"));
        }
    }
    let peers = std::env::var_os("KEYSIDE_PEERS")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers")));
    let base = peers.map(|peers| peers.join("containers/base.tar")).filter(|base| base.is_file());
    let base = base.ok_or("there is no base image (tests/peers/install-containers.sh)")?;
    static_wrapper().map(|_| base)
}

/// Returns the wrapper as it is shipped, static: `KEYSIDE_STATIC_WRAPPER`, else where cargo puts it beside this build.
fn static_wrapper() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("KEYSIDE_STATIC_WRAPPER") {
        return Ok(named.into());
    }
    let keyside = built("keyside");
    let target = keyside.ancestors().nth(2).expect("cargo's target directory");
    let triples = fs::read_dir(target).into_iter().flatten().flatten();
    triples
        .map(|triple| triple.path().join("wrapper/keyside-exec"))
        .find(|wrapper| wrapper.is_file())
        .ok_or_else(|| "the static wrapper is not built (docs/exec.md says how)".into())
}

/// podman's `/var/lib/containers`.
fn storage(home: &Home) -> PathBuf {
    home.join("containers")
}

/// podman and its kind lie in the directories of system programs.
fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", search_path())
}
