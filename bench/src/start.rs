//! How long servers take from spawn to their first answer.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::latency::Latencies;
use crate::target::Target;

/// Longer than any start takes that works.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two tries to connect: short beside a start, long beside a try.
const PAUSE: Duration = Duration::from_micros(100);

/// Starts each server `runs` times, in turn, and asks it once; the times are from spawn to the complete answer.
pub(crate) fn run(targets: &[Target], lines: &[Vec<String>], runs: usize) -> Result<Vec<Latencies>, BenchError> {
    let mut all = vec![Latencies::default(); targets.len()];
    let warmup = (runs / 10).clamp(1, 5);
    for round in 0..warmup + runs {
        for ((target, line), latencies) in targets.iter().zip(lines).zip(&mut all) {
            let took = start(target, line)?;
            if round >= warmup {
                latencies.record(took);
            }
        }
    }
    Ok(all.into_iter().map(Latencies::sorted).collect())
}

/// Ends the server and reaps it when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(target: &Target, line: &[String]) -> Result<Duration, BenchError> {
    // What a killed server leaves behind; usually there is nothing.
    let _ = std::fs::remove_file(&target.socket);
    let request = target.requests().swap_remove(0);
    let begin = Instant::now();
    let child = Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(BenchError::system(&line[0]))?;
    let mut server = Server(child);
    loop {
        // Until it listens there is nothing to connect to, or nobody to answer.
        if let Ok(mut stream) = target.connect() {
            answer(target, &mut stream, &request)?;
            return Ok(begin.elapsed());
        }
        if let Some(status) = server.0.try_wait().map_err(BenchError::system("wait for a server"))? {
            return Err(BenchError::Command { line: line.join(" "), status });
        }
        if begin.elapsed() > LIMIT {
            return Err(target.wrong(format!("no answer within {LIMIT:?}")));
        }
        std::thread::sleep(PAUSE);
    }
}

fn answer(target: &Target, stream: &mut (impl Read + Write), request: &[u8]) -> Result<(), BenchError> {
    stream.write_all(request).map_err(BenchError::system("write a request"))?;
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while !target.complete(&buffer[..filled])? {
        match stream.read(&mut buffer[filled..]).map_err(BenchError::system("read an answer"))? {
            0 => return Err(target.wrong("the connection was closed, or the answer is too long")),
            count => filled += count,
        }
    }
    Ok(())
}
