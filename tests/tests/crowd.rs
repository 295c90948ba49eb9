//! Many clients at once, and what is left of them.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Agent, Client, Home};

/// Within the descriptors that every process may have.
const CROWD: usize = 900;

/// Bytes that the agent has resident.
fn resident(agent: &Agent<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_memory_of_a_crowd_is_given_back_when_it_has_left() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let mut reader = agent.client();
    reader.value("canary", "user").expect(200);
    let before = resident(&agent);
    let crowd: Vec<Client<'_>> = (0..CROWD)
        .map(|_| {
            let mut client = Client::connect(agent.socket());
            client.get("/v1/health").expect(200);
            client
        })
        .collect();
    let grown = resident(&agent) - before;
    assert!(grown > 2_000_000, "the crowd costs what it costs: {grown} bytes");
    drop(crowd);
    let left = || resident(&agent).saturating_sub(before);
    eventually("at least half of it is given back", || (left() < grown / 2).then_some(()));
    remark(format_args!("{CROWD} connections: {grown} bytes, {} left", left()));
    // Whoever stayed has lost nothing, and another crowd is as welcome.
    reader.value("canary", "user").expect(200);
}
