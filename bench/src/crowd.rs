//! What many idle connections cost: memory for each, time of one reader beside them, and what is left when they have gone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::error::BenchError;
use crate::load::{self, Slice};
use crate::target::Target;
use crate::{http, process};

/// After which memory is looked at, when the crowd has come and when it has gone.
const SETTLED: Duration = Duration::from_secs(1);

/// One round: the reader alone, the crowd coming, the reader beside it, the crowd leaving.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) alone: Slice,
    pub(crate) beside: Slice,
    /// Bytes that the server had resident before, while and one second after the crowd was there.
    pub(crate) before: u64,
    pub(crate) during: u64,
    pub(crate) after: u64,
}

/// Measures `count` idle connections to `target`, `rounds` times.
///
/// Only the first round tells what they cost in memory: what a server keeps of one crowd serves the next.
pub(crate) fn run(target: &Target, count: usize, rounds: usize, slice: Duration) -> Result<Vec<Round>, BenchError> {
    process::raise_descriptor_limit()?;
    // Nothing that only the first request allocates may be charged to the crowd.
    load::run(target, 1, slice)?;
    (0..rounds.max(1)).map(|_| round(target, count, slice)).collect()
}

fn round(target: &Target, count: usize, slice: Duration) -> Result<Round, BenchError> {
    std::thread::sleep(SETTLED);
    let before = target.memory()?.resident;
    let alone = load::run(target, 1, slice)?;
    let crowd = gather(target, count)?;
    std::thread::sleep(SETTLED);
    let during = target.memory()?.resident;
    let beside = load::run(target, 1, slice)?;
    drop(crowd);
    std::thread::sleep(SETTLED);
    let after = target.memory()?.resident;
    Ok(Round { alone, beside, before, during, after })
}

/// Connections of which each has asked once and got its answer, or the first event of its stream.
fn gather(target: &Target, count: usize) -> Result<Vec<UnixStream>, BenchError> {
    let request = http::get(&target.idle);
    let mut buffer = [0; 16 * 1024];
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = target.connect()?;
        stream.write_all(&request).map_err(BenchError::system("write a request"))?;
        let mut filled = 0;
        while !http::has_begun(&buffer[..filled]).map_err(|what| target.wrong(format!("{}: {what}", target.idle)))? {
            match stream.read(&mut buffer[filled..]).map_err(BenchError::system("read an answer"))? {
                0 => return Err(target.wrong("an idle connection was closed")),
                more => filled += more,
            }
        }
        crowd.push(stream);
    }
    Ok(crowd)
}
