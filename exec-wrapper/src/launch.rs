//! The last step: this process becomes the command.
//!
//! Everything that [`crate::plan`] accepts today needs no parent, so nothing stays behind but the cleaner of the files.
//! A plan that does need one (`--on-change`, `--mask`, the duties of PID 1) would be supervised instead of
//! [`become_child`]; that choice belongs here.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::exit_code;
use crate::hardening::Hardened;
use crate::limits;
use crate::plan::{Plan, User};
use crate::report::{Complaint, Stop};
use crate::sys;

/// Where execvp looks without a PATH (glibc's confstr).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Finds the command as execvp would: a name with a slash is a path, any other is looked for along `path`.
/// A relative one counts from the child's working directory.
pub(crate) fn look_up(plan: &Plan, path: Option<&[u8]>) -> Result<CString, Stop> {
    let Some(command) = plan.command.first() else {
        return Err(Complaint::new(
            "no command to run",
            "write it after the options: keyside exec ... -- CMD [ARG...]",
        )
        .into());
    };
    let name = command.to_bytes();
    let shown = command.to_string_lossy();
    let stop = |code, what: String, hint: &str| Stop { code, complaints: vec![Complaint::new(what, hint)] };
    let not_executable = || {
        stop(
            exit_code::NOT_EXECUTABLE,
            format!("{shown} cannot be executed"),
            "it must be a file with an execute permission; try chmod +x",
        )
    };
    if name.contains(&b'/') {
        return match executable(plan, OsStr::from_bytes(name)) {
            Ok(()) => Ok(command.clone()),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                Err(stop(exit_code::NOT_FOUND, format!("{shown} was not found"), "check the path of the command"))
            }
            Err(_) => Err(not_executable()),
        };
    }
    let mut denied = false;
    if !name.is_empty() {
        for directory in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
            let mut candidate = directory.to_vec();
            // An empty part is the working directory.
            if !candidate.is_empty() {
                candidate.push(b'/');
            }
            candidate.extend_from_slice(name);
            match executable(plan, OsStr::from_bytes(&candidate)) {
                // The parts come from NUL-terminated strings.
                Ok(()) => return Ok(CString::new(candidate).expect("no NUL inside")),
                Err(Errno::ACCESS) => denied = true,
                Err(_) => {}
            }
        }
    }
    if denied {
        return Err(not_executable());
    }
    Err(stop(
        exit_code::NOT_FOUND,
        format!("{shown} was not found on the PATH of the child"),
        "check its name, or give its path",
    ))
}

fn executable(plan: &Plan, candidate: &OsStr) -> Result<(), Errno> {
    let path: PathBuf = match &plan.chdir {
        Some(directory) => directory.join(candidate),
        None => Path::new(candidate).to_owned(),
    };
    // A directory that may not be searched hides whatever is in it: as good as not there, as every shell has it.
    let stat = rustix::fs::stat(&path).map_err(|error| if error == Errno::ACCESS { Errno::NOENT } else { error })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Checks `--chdir` before anything else happens.
pub(crate) fn check_directory(plan: &Plan) -> Result<(), Complaint> {
    let Some(directory) = &plan.chdir else { return Ok(()) };
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(no_directory(directory, "not a directory")),
        Err(error) => Err(no_directory(directory, &error.kind().to_string())),
    }
}

fn no_directory(directory: &Path, why: &str) -> Complaint {
    Complaint::new(
        format!("cannot change to the directory {}: {why}", directory.display()),
        "name another one with --chdir",
    )
}

/// What is to be known by whoever starts the step as PID 1; none for any other process, and with `--init never`.
pub(crate) fn duties_left_undone(plan: &Plan) -> Option<&'static str> {
    (plan.init && sys::is_pid_one()).then_some(
        "as PID 1 the command has to reap orphans and handle signals itself, for --init auto does nothing in this version; \
         start it under an init, or say --init never",
    )
}

/// Becomes the command: the user, the directory, the core limit and SIGPIPE as the child is to have them, then execve.
/// Returns only on failure.
pub(crate) fn become_child(
    plan: &Plan,
    program: &CStr,
    environment: &[&CStr],
    hardened: &mut Hardened,
) -> Result<Infallible, Stop> {
    if let Some(User { uid, gid }) = plan.user {
        let gid = gid.unwrap_or_else(|| rustix::process::getegid().as_raw());
        sys::become_user(uid, gid).map_err(|error| {
            Complaint::new(format!("cannot become uid {uid}, gid {gid}: {}", error.kind()), "--user needs root")
        })?;
    }
    if let Some(directory) = &plan.chdir {
        // As the user of the child, whose permissions decide.
        rustix::process::chdir(directory)
            .map_err(|error| no_directory(directory, &std::io::Error::from(error).kind().to_string()))?;
    }
    hardened.end();
    sys::restore_sigpipe();
    let argv: Vec<&CStr> = plan.command.iter().map(CString::as_c_str).collect();
    let mut error = sys::execve(program, &argv, environment);
    if error.raw_os_error() == Some(libc::ENOEXEC) {
        // A script without `#!`: execvp, and so env and every shell, hands it to sh.
        let script: Vec<&CStr> = [c"/bin/sh", program].into_iter().chain(argv.into_iter().skip(1)).collect();
        error = sys::execve(c"/bin/sh", &script, environment);
    }
    sys::ignore_sigpipe();
    let shown = program.to_string_lossy();
    let (code, complaint) = match error.raw_os_error() {
        Some(libc::E2BIG) => (exit_code::FAILED, limits::too_large_whole()),
        // The file is there, as we saw: what is missing is its interpreter.
        Some(libc::ENOENT) => (
            exit_code::NOT_FOUND,
            Complaint::new(
                format!("{shown} was not found, or its interpreter was not"),
                "check its first line, or the loader it names",
            ),
        ),
        _ => (
            exit_code::NOT_EXECUTABLE,
            Complaint::new(
                format!("{shown} cannot be executed: {}", error.kind()),
                "is it a program for this machine, and may it be executed?",
            ),
        ),
    };
    Err(Stop { code, complaints: vec![complaint] })
}
