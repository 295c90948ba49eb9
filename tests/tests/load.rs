//! Clients that take more than their share: what they get, and what others get meanwhile.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use keyside_tests::eventually::eventually;
use keyside_tests::remark::remark;
use keyside_tests::{Agent, Client, Home, programs};
use serde_json::json;

/// Another user where there can be one, else ourselves.
fn neighbour() -> u32 {
    if programs::is_root() { 1234 } else { rustix::process::geteuid().as_raw() }
}

/// A configuration in which the neighbour and we may read everything, on a socket for everybody.
fn shared(backend: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!("[agent]\nsocket_mode = \"0666\"\n{backend}[grant.all]\nuid = [{uid}, {}]\nread = [\"*\"]\n", neighbour())
}

fn connect_neighbour<'h>(agent: &Agent<'h>, home: &'h Home) -> Client<'h> {
    if programs::is_root() {
        return Client::connect_as(agent.socket(), neighbour()).recorded(home);
    }
    remark("the neighbour is ourselves: only root can be somebody else");
    agent.client()
}

/// What a connection beyond all limits is told: a reply, or its end where even that is not taken.
fn status_of(client: &mut Client<'_>) -> Option<u16> {
    client.reply().map(|reply| reply.status)
}

#[test]
fn a_hundred_and_fifty_clients_at_once_that_stop_half_way_are_cut_off_and_harm_nobody() {
    let home = Home::new();
    home.let_others_in();
    let agent = home.agent_with(&shared(&home.planted().backend("")));
    let half_a_body = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let starts = ["", "GET /v1/health HTTP/1.1\r\nHos", half_a_body];
    let mut slow: Vec<_> = (0..150).map(|_| agent.client()).collect();
    for (client, bytes) in slow.iter_mut().zip(starts.iter().cycle()) {
        client.send(bytes);
    }
    let began = Instant::now();
    let mut worst = Duration::ZERO;
    // As long as they are there, new clients are served as if they were not.
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        connect_neighbour(&agent, &home).value("canary", "value").expect(200);
        worst = worst.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    for client in &mut slow {
        assert!([None, Some(400)].contains(&status_of(client)));
        assert!(client.is_closed());
    }
    remark(format_args!(
        "cut off after {:?} (promised: 5 s); the next client waited at most {worst:?}",
        began.elapsed()
    ));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_byte_a_second_buys_no_time_for_a_head_or_a_body() {
    let home = Home::new();
    let agent = home.agent_with(&home.planted().backend(""));
    let head = "GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ";
    let body = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let socket = agent.socket();
    std::thread::scope(|scope| {
        for (what, start) in [("a head", head), ("a body", body)] {
            scope.spawn(move || {
                let mut client = Client::connect(socket);
                client.send(start);
                let ((), took) = eventually("a dripping client is cut off", || {
                    client.send(" ");
                    client.closes_within(Duration::from_secs(1)).then_some(())
                });
                remark(format_args!("{what}, dripping: cut off after {took:?} (promised: 5 s)"));
                assert!(took < Duration::from_secs(20), "{what}: {took:?}");
            });
        }
    });
    agent.client().value("canary", "value").expect(200);
}

#[test]
fn two_hundred_connections_on_sixty_four_descriptors_are_served_or_told_so_and_the_agent_recovers() {
    let home = Home::new();
    home.let_others_in();
    let config = shared(&home.planted().backend(""));
    let agent = home.agent().config(&config).after("ulimit -n 64").start();
    let ask = "GET /v1/secrets/canary/user HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(agent.socket())).collect();
    let mut served = Vec::new();
    for mut client in clients.drain(..) {
        client.send(ask);
        match status_of(&mut client) {
            Some(200) => served.push(client),
            refused => {
                assert!([None, Some(429)].contains(&refused), "{refused:?}");
                assert!(client.is_closed());
            }
        }
    }
    remark(format_args!("{} of 200 were served", served.len()));
    assert_eq!(served.len(), 32, "one user has half of the descriptors");
    // Another user has room still, and whoever asks only for health has it always.
    if programs::is_root() {
        connect_neighbour(&agent, &home).value("canary", "value").expect(200);
    }
    agent.client().get("/v1/health").expect(200);
    // The back-end, too: a name that was never asked for.
    served[0].value("simple", "password").expect(200);
    let before = agent.cpu_hundredths();
    std::thread::sleep(Duration::from_secs(1));
    let used = agent.cpu_hundredths() - before;
    assert!(used < 50, "{used} hundredths of a second of one second, with nothing to do");
    for client in &mut served {
        client.value("canary", "value").expect(200);
    }
    drop(served);
    eventually("everybody is served again", || {
        let mut clients: Vec<_> = (0..30).map(|_| agent.client()).collect();
        clients.iter_mut().all(|client| client.value("canary", "value").status == 200).then_some(())
    });
    assert!(agent.stop().success());
}

#[test]
fn an_agent_out_of_descriptors_neither_ends_nor_spins_and_recovers() {
    let home = Home::new();
    // Too few for its shares to be kept: what it has open itself is more than is left over.
    let agent = home.agent().config(&home.planted().backend("")).after("ulimit -n 26").start();
    agent.client().value("canary", "value").expect(200);
    let held: Vec<_> = (0..100).map(|_| Client::connect(agent.socket())).collect();
    eventually("it is out of descriptors", || agent.log().contains("cannot accept connections").then_some(()));
    let before = agent.cpu_hundredths();
    std::thread::sleep(Duration::from_secs(1));
    let used = agent.cpu_hundredths() - before;
    assert!(used < 50, "{used} hundredths of a second of one second");
    let said = agent.log().matches("cannot accept connections").count();
    assert!(said < 10, "said {said} times");
    drop(held);
    eventually("the agent serves again", || {
        let mut client = Client::connect(agent.socket());
        client.send("GET /v1/secrets/canary/user HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.reply().filter(|reply| reply.status == 200)
    });
    assert!(agent.stop().success());
}

#[test]
fn stopped_readers_slow_writers_and_idle_connections_of_one_user_do_not_slow_another() {
    let home = Home::new();
    home.let_others_in();
    let store = home.planted();
    store.plant("large", &json!({ "value": "x".repeat(900_000) }));
    let agent = home.agent_with(&shared(&store.backend("")));
    let mut stopped: Vec<_> = (0..30).map(|_| Client::connect(agent.socket())).collect();
    for client in &mut stopped {
        client.send("GET /v1/secrets/large/value HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(4));
    }
    let mut writers: Vec<_> = (0..30).map(|_| Client::connect(agent.socket())).collect();
    let mut idle: Vec<_> = (0..30).map(|_| agent.client()).collect();
    for client in &mut idle {
        client.get("/v1/health").expect(200);
    }
    let mut neighbour = connect_neighbour(&agent, &home);
    let mut took = Vec::new();
    for _ in 0..100 {
        for client in &mut writers {
            client.send("G");
        }
        let asked = Instant::now();
        neighbour.value("canary", "value").expect(200);
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    remark(format_args!("a read beside them: median {:?}, worst {:?}", took[50], took[99]));
    assert!(took[50] < Duration::from_secs(1));
    // They are cut off, and only they.
    drop(writers);
    let ((), cut) = eventually("those that do not read are cut off", || {
        let status = neighbour.get("/v1/status").expect(200).json();
        (status["connections"] == 1 + idle.len()).then_some(())
    });
    remark(format_args!("readers that had stopped were cut off after {cut:?} (promised: 10 s)"));
    for client in &mut idle {
        client.value("canary", "value").expect(200);
    }
    for client in &mut stopped {
        // What had been sent is there; the rest is not, and the connection has ended.
        let mut received = 0;
        while let Some(reply) = client.whole_reply() {
            received += reply.body.len();
        }
        assert!(received < 4 * 900_000);
    }
}
