//! A stand-in for AWS, moto or ministack, started and ended with its scenario.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::eventually::eventually;
use crate::remark::remark;

/// The region that everything lies in.
pub const REGION: &str = "eu-central-1";

/// A running stand-in; ends with this.
pub struct Cloud {
    child: Child,
    place: PathBuf,
    port: u16,
    /// Its address.
    pub url: String,
}

impl Cloud {
    /// Starts moto. None, and a word on stderr, where it is not installed.
    pub fn moto() -> Option<Self> {
        let place = installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh")?;
        let port = free_port();
        Some(Self::start(moto(&place, port), port, place))
    }

    /// Starts ministack, which has a machine's metadata service besides. None, and a word on stderr, where it is not
    /// installed.
    pub fn ministack() -> Option<Self> {
        let place = installed("KEYSIDE_MINISTACK", "ministack-1.5.33", "install-ministack.sh")?;
        let port = free_port();
        let mut command = Command::new(place.join("bin/ministack"));
        command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
        command.env("MINISTACK_REGION", REGION).env("MINISTACK_IMDS_V2_REQUIRED", "1");
        command.env("SERVICES", "secretsmanager,sts,iam,imds").env("LOG_LEVEL", "WARNING");
        Some(Self::start(command, port, place))
    }

    fn start(mut command: Command, port: u16, place: PathBuf) -> Self {
        let cloud = Self { child: spawn(&mut command), place, port, url: format!("http://127.0.0.1:{port}") };
        cloud.wait_until_it_listens();
        cloud
    }

    fn wait_until_it_listens(&self) {
        eventually("the stand-in listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Returns where it is installed, AWS's own Python client beside it.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Returns what ZenML is told to keep its values here, and to log in with this secret key.
    pub fn as_secrets_store(&self, secret_key: &str) -> [(&'static str, String); 4] {
        let login = json!({ "region": REGION, "aws_access_key_id": "test", "aws_secret_access_key": secret_key });
        [
            ("ZENML_SECRETS_STORE_TYPE", "aws".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_METHOD", "secret-key".to_owned()),
            ("ZENML_SECRETS_STORE_AUTH_CONFIG", login.to_string()),
            // ZenML's secrets store passes over an `endpoint_url`; AWS's own clients read this.
            ("AWS_ENDPOINT_URL", self.url.clone()),
        ]
    }

    /// Ends it: nothing answers at its address any more.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts moto again at the same address after [`stop`](Self::stop), with nothing of what it held.
    pub fn start_empty(&mut self) {
        self.child = spawn(&mut moto(&self.place, self.port));
        self.wait_until_it_listens();
    }

    /// Calls AWS's own Python client, of moto's environment, with each of `calls`: a method and its arguments.
    pub fn owner(&self, calls: &serde_json::Value) {
        let python = installed("KEYSIDE_MOTO", "moto-5.2.5", "install-moto.sh").unwrap_or_else(|| self.place.clone());
        let script = "import boto3, json, sys\n\
            client = boto3.client('secretsmanager', region_name=sys.argv[2], endpoint_url=sys.argv[1],\n\
                aws_access_key_id='owner', aws_secret_access_key='owner')\n\
            for method, arguments in json.load(sys.stdin):\n    getattr(client, method)(**arguments)\n";
        let mut child = Command::new(python.join("bin/python"))
            .args(["-c", script, &self.url, REGION])
            .stdin(Stdio::piped())
            .spawn()
            .expect("moto's Python starts");
        serde_json::to_writer(child.stdin.take().expect("piped"), calls).expect("it reads");
        assert!(child.wait().expect("our child").success());
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the folder that `variable` names, else where `script` of the peers puts it. None, and a word on stderr, where
/// that is not whole.
pub fn installed(variable: &str, folder: &str, script: &str) -> Option<PathBuf> {
    let cache = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/keyside-peers"));
    let peers = std::env::var_os("KEYSIDE_PEERS").map(PathBuf::from).or_else(cache);
    let named = std::env::var_os(variable).map(PathBuf::from);
    let place = named.or_else(|| peers.map(|peers| peers.join(folder)));
    // Another user's cache may be closed to us.
    let place = place.filter(|place| place.join(".keyside-complete").is_file());
    if place.is_none() {
        remark(format_args!("skipped: {folder} is not installed (tests/peers/{script})"));
    }
    place
}

fn moto(place: &Path, port: u16) -> Command {
    let mut command = Command::new(place.join("bin/moto_server"));
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    command
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the stand-in starts")
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a free port").port()
}
