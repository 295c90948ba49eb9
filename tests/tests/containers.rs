//! The project's images, and an agent and steps in containers of their own.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyside_tests::containers::{AGENT, BASE, Containers, EXEC, RESTRICTED};
use keyside_tests::eventually::eventually;
use keyside_tests::programs::package;
use keyside_tests::remark::remark;
use keyside_tests::{Ended, Home, Store};
use serde_json::{Value, json};

/// Where the volume of the socket is mounted in every container, and the socket in it.
const SHARED: &str = "/run/keyside-shared";
const SOCKET: &str = "/run/keyside-shared/keyside/agent.sock";
const STEP_UID: u32 = 20001;

/// An agent in a container, and what steps beside it are given.
struct Sidecar<'c, 'h> {
    home: &'h Home,
    containers: &'c Containers<'h>,
    store: Store<'h>,
    /// As a Kubernetes emptyDir: anybody may write to it.
    shared: PathBuf,
    /// Where an init container has put the wrapper.
    wrapper: PathBuf,
    /// Holds what the step is to find in its variable and its file.
    expected: PathBuf,
}

impl<'c, 'h> Sidecar<'c, 'h> {
    /// Lays everything out, with the planted value in `canary.value` and `grant` in the configuration.
    fn prepare(home: &'h Home, containers: &'c Containers<'h>, grant: &str) -> Self {
        let store = home.planted();
        let (shared, wrapper, expected) = (home.join("shared"), home.join("wrapper"), home.join("expected"));
        let directories = [(&shared, 0o777), (&wrapper, 0o777), (&home.join("etc"), 0o755)];
        for (directory, mode) in directories {
            fs::create_dir(directory).unwrap();
            allow(directory, mode);
        }
        allow(store.file().parent().unwrap(), 0o755);
        allow(&store.file(), 0o644);
        let configuration = format!(
            "[agent]\nsocket = \"{SOCKET}\"\nsocket_mode = \"0666\"\n\
             [backend.store]\ntype = \"zenml-sql\"\nurl = \"sqlite:////store/zenml.db\"\n\
             [cache]\npoll_interval = \"1s\"\n{grant}"
        );
        allow(&home.write("etc/keyside.toml", configuration), 0o644);
        home.holds_values(&expected);
        let sidecar = Self { home, containers, store, shared, wrapper, expected };
        sidecar.expect(home.canary());
        sidecar
    }

    fn expect(&self, value: &str) {
        allow(&self.home.write("expected", value), 0o444);
    }

    /// Starts the agent; it ends by itself or goes on.
    fn start_agent(&self) {
        let arguments = [
            self.mounted("etc", "/etc/keyside:ro"),
            mount(self.store.file().parent().unwrap(), "/store:ro"),
            mount(&self.shared, SHARED),
        ];
        let run =
            self.containers.podman(["run", "--detach", "--name", "agent"]).args(RESTRICTED).args(arguments.concat());
        run.arg(AGENT).end().expect_code(0);
    }

    fn wait_until_ready(&self) {
        self.containers.ok(["exec", "agent", "keyside", "ready", "--wait", "30s"]);
    }

    /// Copies the wrapper to where the steps find it, as an init container does.
    fn bring_wrapper(&self) {
        let bring = ["--user=20001:20001".to_owned(), "--entrypoint=cp".to_owned()];
        let [flag, volume] = mount(&self.wrapper, "/keyside");
        self.containers
            .run(
                bring
                    .into_iter()
                    .chain([flag, volume])
                    .chain([AGENT, "/usr/local/bin/keyside-exec", "/keyside/"].map(str::to_owned)),
            )
            .expect_code(0);
    }

    /// Runs a step as `uid` that finds the expected value in a variable and in a file, and then ends with 7.
    fn step(&self, uid: u32, environment: &[&str]) -> Ended {
        let mut arguments = vec![format!("--user={uid}:{uid}"), format!("--env=KEYSIDE_SOCKET={SOCKET}")];
        arguments.extend(environment.iter().map(|variable| format!("--env={variable}")));
        arguments.push("--env=V={{canary.value}}".into());
        for volume in [
            mount(&self.shared, &format!("{SHARED}:ro")),
            mount(&self.wrapper, "/keyside:ro"),
            mount(&self.expected, "/expected:ro"),
        ] {
            arguments.extend(volume);
        }
        let script = "printf %s \"$V\" >/tmp/v && cmp /tmp/v /expected && cmp \"$P\" /expected \
                      && stat -c '%a %u' \"$P\" && echo \"process $$\" && exit 7";
        let command = [BASE, "/keyside/keyside-exec", "--file-env", "P={{canary.value}}", "--", "sh", "-c", script];
        arguments.extend(command.map(str::to_owned));
        self.containers.run(arguments)
    }

    fn mounted(&self, name: &str, place: &str) -> [String; 2] {
        mount(&self.home.join(name), place)
    }
}

fn mount(from: &Path, place: &str) -> [String; 2] {
    ["--volume".into(), format!("{}:{place}", from.display())]
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn inspect(containers: &Containers<'_>, kind: &str, name: &str) -> Value {
    let described: Value = serde_json::from_str(&containers.ok([kind, "inspect", name])).unwrap();
    described[0].clone()
}

#[test]
fn the_images_run_as_a_plain_user_and_hold_only_what_they_need() {
    let home = Home::new();
    let Some(containers) = Containers::start(&home) else { return };
    for image in [BASE, AGENT, EXEC] {
        let size = inspect(&containers, "image", image)["Size"].as_u64().unwrap();
        remark(format_args!("{image}: {:.1} MB (the agent is a debug build here)", size as f64 / 1e6));
    }
    for (image, entry) in [(AGENT, "/usr/local/bin/keyside"), (EXEC, "/keyside-exec")] {
        let config = inspect(&containers, "image", image)["Config"].clone();
        assert_eq!(config["User"], "10001:10001", "{image}");
        assert_eq!(config["Entrypoint"], json!([entry]), "{image}");
        assert!(config["ExposedPorts"].is_null() && config["Volumes"].is_null(), "{image}: {config}");
        let variables = config["Env"].as_array().unwrap().iter().filter_map(Value::as_str);
        assert!(variables.clone().all(|variable| variable.starts_with("PATH=")), "{image}: {config}");
    }

    // The base, one user, and two programs.
    let changed = containers.ok(["image", "diff", AGENT, BASE]);
    for line in changed.lines() {
        let (how, path) = line.split_once(' ').unwrap();
        let expected = match how {
            "A" => ["/usr/local/bin/keyside", "/usr/local/bin/keyside-exec", "/run/keyside"].contains(&path),
            // Accounts and their backups; and what has lost its set-user-id bit, which only ever lies among the programs.
            _ => path.starts_with("/etc") || path.starts_with("/usr") || ["/run", "/var", "/var/log"].contains(&path),
        };
        assert!(expected || path.starts_with("/etc/") && path.ends_with('-'), "{line} in:\n{changed}");
    }
    let lenders = files_below(&containers, AGENT, &["-type", "f", "-perm", "/6000"]);
    assert!(lenders.is_empty(), "programs that lend their owner's rights: {lenders:?}");
    assert_eq!(files_below(&containers, EXEC, &[]), ["/keyside-exec"]);
    let said = containers.run([EXEC, "--version"]).expect_code(0);
    assert!(said.text().starts_with("keyside"), "{}", said.text());
}

/// Lists what lies in an image, by its paths there.
fn files_below(containers: &Containers<'_>, image: &str, chosen: &[&str]) -> Vec<String> {
    let directory = containers.ok(["image", "mount", image]);
    let found = containers.in_room(["find", &directory, "-mindepth", "1"]).args(chosen).args(["-printf", "/%P\\n"]);
    found.end().expect_code(0).text().lines().map(str::to_owned).collect()
}

#[test]
fn a_step_in_a_container_gets_its_secrets_from_an_agent_in_another_and_others_get_none() {
    let home = Home::new();
    let Some(containers) = Containers::start(&home) else { return };
    let grant = format!("[grant.step]\nuid = [{STEP_UID}]\nread = [\"canary\"]\n");
    let sidecar = Sidecar::prepare(&home, &containers, &grant);
    sidecar.start_agent();
    sidecar.wait_until_ready();
    sidecar.bring_wrapper();
    let healthy = containers.podman(["healthcheck", "run", "agent"]).end();
    assert_eq!(healthy.code(), Some(0), "{}", healthy.stderr);

    let trusted = "KEYSIDE_AGENT_UID=10001";
    let step = sidecar.step(STEP_UID, &[trusted]).expect_code(7);
    assert_eq!(step.text(), "400 20001\nprocess 1\n", "the file's mode and owner, and the wrapper is gone");

    let refused = sidecar.step(20002, &[trusted]).expect_complaint(125, &["peer_refused", "20002"]);
    assert_eq!(refused.text(), "", "nothing was started");
    let untrusted = sidecar.step(STEP_UID, &[]).expect_complaint(125, &["uid 10001", "--agent-uid"]);
    assert_eq!(untrusted.text(), "", "nothing was started");
    let root = sidecar.step(0, &[trusted]).expect_complaint(125, &["peer_refused"]);
    assert_eq!(root.text(), "", "nothing was started");

    // Rotated where ZenML keeps it, while the agent runs.
    let rotated = format!("rotated {}", home.canary());
    sidecar.store.remove("canary");
    sidecar.store.plant("canary", &json!({ "value": rotated }));
    sidecar.expect(&rotated);
    eventually("a step sees the rotated value", || {
        (sidecar.step(STEP_UID, &[trusted]).code() == Some(7)).then_some(())
    });

    // What the kernel says of the agent's process.
    let status = containers.ok(["exec", "agent", "cat", "/proc/1/status"]);
    for line in ["Uid:\t10001\t10001\t10001\t10001", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} is not in:\n{status}");
    }
    containers.ok(["stop", "--time", "10", "agent"]);
    let state = inspect(&containers, "container", "agent")["State"].clone();
    assert_eq!(state["ExitCode"], 0, "ended by itself within the grace, for a killed one has 137");
    assert!(!sidecar.shared.join("keyside/agent.sock").exists(), "its socket is removed");
    assert!(containers.remember_all() >= 6, "the agent, an init container, the steps");
}

#[test]
fn a_peer_in_another_pid_namespace_satisfies_no_grant_that_names_a_program() {
    let home = Home::new();
    let Some(containers) = Containers::start(&home) else { return };
    let grant = format!("[grant.step]\nuid = [{STEP_UID}]\nexe = [\"/keyside/keyside-exec\"]\nread = [\"canary\"]\n");
    let sidecar = Sidecar::prepare(&home, &containers, &grant);
    sidecar.start_agent();
    let ready = containers.podman(["exec", "agent", "keyside", "ready", "--wait", "30s"]).end();
    if ready.code() != Some(0) {
        // Told at once that nothing here could ever satisfy the grant, which is as good.
        let log = containers.podman(["logs", "agent"]).end().stderr;
        assert_eq!(inspect(&containers, "container", "agent")["State"]["ExitCode"], 78, "{log}");
        assert!(log.contains("exe"), "{log}");
        return;
    }
    sidecar.bring_wrapper();
    let refused = sidecar.step(STEP_UID, &["KEYSIDE_AGENT_UID=10001"]).expect_complaint(125, &["peer_refused"]);
    assert_eq!(refused.text(), "", "nothing was started");
    containers.remember_all();
}

#[test]
fn in_a_fresh_volume_at_the_default_place_agent_and_clients_find_each_other_unconfigured() {
    let home = Home::new();
    let Some(containers) = Containers::start(&home) else { return };
    let grant = format!("[grant.step]\nuid = [{STEP_UID}]\nread = [\"canary\"]\n");
    let sidecar = Sidecar::prepare(&home, &containers, &grant);
    let written = fs::read_to_string(home.join("etc/keyside.toml")).unwrap();
    allow(&home.write("etc/keyside.toml", written.replace(&format!("socket = \"{SOCKET}\"\n"), "")), 0o644);
    let store = mount(sidecar.store.file().parent().unwrap(), "/store:ro");
    let run =
        containers.podman(["run", "--detach", "--name", "agent", "--volume", "run:/run/keyside"]).args(RESTRICTED);
    run.args(sidecar.mounted("etc", "/etc/keyside:ro")).args(store).arg(AGENT).end().expect_code(0);
    sidecar.wait_until_ready();

    let asking = ["--user=20001:20001", "--env=KEYSIDE_AGENT_UID=10001", "--volume=run:/run/keyside:ro", AGENT];
    containers.run(asking.iter().chain(&["health"])).expect_code(0);
    let checked = containers.run(asking.iter().chain(&["check", "{{canary.value}}"])).expect_code(0);
    assert!(checked.text().starts_with("ok"), "{}", checked.text());
    containers.remember_all();
}

#[test]
fn the_pod_in_deploy_kubernetes_runs_its_step_with_the_secret() {
    let home = Home::new();
    let Some(containers) = Containers::start(&home) else { return };
    let store = home.planted();
    store.plant("mlflow_secret", &json!({ "password": home.canary() }));
    let directory = store.file().parent().unwrap().to_owned();
    allow(&directory, 0o755);
    allow(&store.file(), 0o644);
    let device = format!("device={}", directory.display());
    containers.ok(["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", &device, "zenml-store"]);

    let manifest = fs::read_to_string(package().join("../deploy/kubernetes/sidecar.yaml")).unwrap();
    let file = home.write("pod.yaml", for_podman(&manifest));
    let played = containers.podman(["play", "kube", "--network", "none"]).arg(&file).end();
    assert_eq!(played.code(), Some(0), "{}", played.stderr);
    containers.ok(["wait", "step-step"]);
    let step = containers.podman(["logs", "step-step"]).end();
    let told = format!("{} characters\nsocket kept\n", home.canary().chars().count());
    assert_eq!(step.text(), told, "{}", step.stderr);

    containers.ok(["pod", "stop", "--time", "10", "step"]);
    for (name, user) in [("step-keyside", "10001:10001"), ("step-step", "20001:20001")] {
        let container = inspect(&containers, "container", name);
        assert_eq!(container["State"]["ExitCode"], 0, "{name}");
        assert_eq!(container["Config"]["User"], user, "{name}");
        assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true, "{name}");
        assert!(container["EffectiveCaps"].as_array().is_none_or(Vec::is_empty), "{name}");
        assert_eq!(container["HostConfig"]["SecurityOpt"], json!(["no-new-privileges"]), "{name}");
    }
    containers.remember_all();
}

/// The manifest as podman can run it: the images are the ones just built; podman knows no native sidecars, so the agent is
/// listed with the step, which waits for it; and podman gives a volume to the user of the first container that mounts it
/// instead of to everybody, so the init container mounts it too.
fn for_podman(manifest: &str) -> String {
    let (before, rest) = manifest.split_once("    # The agent: a native sidecar").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let (agent, step) = rest.split_once("  containers:\n").unwrap();
    let native = "      restartPolicy: Always\n";
    assert!(agent.contains(native), "the agent is a native sidecar:\n{agent}");
    let before = before.replacen(
        "          mountPath: /keyside\n",
        &format!("          mountPath: /keyside\n        - name: keyside-run\n          mountPath: {SHARED}\n"),
        1,
    );
    // The step as it stands needs Python, and a registry to have it from.
    let (until, after) = step.split_once("      args: ").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let script = format!(
        "printf %s \\\"$MLFLOW_TRACKING_PASSWORD\\\" >/dev/shm/v; LC_ALL=C.UTF-8 wc -m </dev/shm/v | sed 's/$/ characters/'; \
         rm -f {SOCKET} 2>/dev/null || echo socket kept"
    );
    let step = format!("{until}      args: [\"sh\", \"-c\", \"{script}\"]\n{after}");
    format!("{before}  containers:\n{}{step}", agent.replace(native, ""))
        .replace("registry.example.com/keyside:0.1.0", &format!("{AGENT}\n      imagePullPolicy: Never"))
        .replace("docker.io/library/python:3.12-slim", &format!("{BASE}\n      imagePullPolicy: Never"))
        .replace("[\"/keyside/keyside-exec\", ", "[\"/keyside/keyside-exec\", \"--wait\", \"30s\", ")
}
