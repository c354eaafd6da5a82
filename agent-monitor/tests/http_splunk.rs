//! The Splunk sink against a collector that is written from its documentation and checks
//! every request; one that forgets what it was to acknowledge, too.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_monitor::sinks::Sinks;
use agent_monitor::store::Store;
use common::http::{LIMIT, Monitor, Receiver, Request, answer, config};
use common::{alert, id, wait_for};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// What the collector's documentation says of an event, checked; the ids of the events.
fn hec_events(request: &Request) -> Vec<String> {
    assert_eq!(request.path, "/services/collector/event");
    assert_eq!(request.header("authorization"), "Splunk s3cret");
    let allowed = [
        "time",
        "host",
        "source",
        "sourcetype",
        "index",
        "event",
        "fields",
    ];
    request
        .lines()
        .iter()
        .map(|object| {
            let members = object.as_object().unwrap();
            for name in members.keys() {
                assert!(allowed.contains(&name.as_str()), "{name}");
            }
            let time = object["time"].as_str().unwrap();
            assert!(time.parse::<f64>().is_ok(), "{time}");
            assert_eq!(object["host"], "node-1");
            object["event"]["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn splunk_gets_every_alert_in_order() {
    let receiver = Receiver::start(|_, _| answer(200, &json!({ "text": "Success", "code": 0 })));
    let monitor = Monitor::start(
        &format!(
            "kind = \"splunk\"\nurl = \"{}\"\ntoken = $\nindex = \"agents\"\nbatch = {{ records = 4 }}",
            receiver.url()
        ),
        1..=10,
    );
    monitor.wait_until_delivered();
    monitor.stop();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    let got: Vec<_> = requests.iter().flat_map(hec_events).collect();
    assert_eq!(got, (1..=10).map(id).collect::<Vec<_>>());
    assert_eq!(requests[0].lines()[0]["index"], "agents");
}

#[test]
fn splunk_waits_for_the_indexers_where_told_to() {
    let receiver = Receiver::start(|before, request| match request.path.as_str() {
        "/services/collector/event" => answer(200, &json!({ "code": 0, "ackId": 7 })),
        "/services/collector/ack" => {
            assert_eq!(
                serde_json::from_slice::<Value>(&request.body).unwrap(),
                json!({ "acks": [7] })
            );
            answer(200, &json!({ "acks": { "7": before >= 3 } }))
        }
        path => panic!("{path}"),
    });
    let monitor = Monitor::start(
        &format!(
            "kind = \"splunk\"\nurl = \"{}\"\ntoken = $\nack = true",
            receiver.url()
        ),
        1..=2,
    );
    monitor.wait_until_delivered();
    monitor.stop();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4, "one delivery, three questions");
    let channels: Vec<_> = requests
        .iter()
        .map(|request| request.header("x-splunk-request-channel"))
        .collect();
    assert_eq!(channels[0].len(), 36);
    assert!(channels.iter().all(|channel| *channel == channels[0]));
}

#[test]
fn splunk_that_refuses_one_event_gets_the_others() {
    let poison = id(5);
    let receiver = Receiver::start(move |_, request| {
        if hec_events(request).contains(&poison) {
            let number = hec_events(request).iter().position(|it| *it == poison);
            let error =
                json!({ "text": "Invalid data format", "code": 6, "invalid-event-number": number });
            return answer(400, &error);
        }
        answer(200, &json!({ "text": "Success", "code": 0 }))
    });
    let sink = format!("kind = \"splunk\"\nurl = \"{}\"\ntoken = $", receiver.url());
    let monitor = Monitor::start(&sink, 1..=9);
    monitor.wait_until_delivered();
    assert_eq!(monitor.status().dead_letters, 1);
    let letters = monitor.store.dead_letters("siem", 0, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].record.seq, 5);
    assert!(
        letters[0].error.contains("Invalid data format"),
        "{}",
        letters[0].error
    );
    monitor.stop();
    let mut delivered: Vec<_> = receiver
        .requests()
        .iter()
        .map(hec_events)
        .filter(|ids| !ids.contains(&id(5)))
        .flatten()
        .collect();
    delivered.dedup();
    let expected: Vec<_> = (1..=9).filter(|n| *n != 5).map(id).collect();
    assert_eq!(delivered, expected);
}

#[test]
fn a_wrong_token_puts_nothing_aside() {
    let receiver = Receiver::start(|before, _| {
        if before < 3 {
            answer(403, &json!({ "text": "Invalid token", "code": 4 }))
        } else {
            answer(200, &json!({ "code": 0 }))
        }
    });
    let sink = format!("kind = \"splunk\"\nurl = \"{}\"\ntoken = $", receiver.url());
    let monitor = Monitor::start(&sink, 1..=3);
    let error = wait_for("an error", LIMIT, || monitor.status().last_error);
    assert!(
        error.contains("403") && error.contains("Invalid token"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
    monitor.wait_until_delivered();
    let status = monitor.status();
    assert_eq!((status.dead_letters, status.retries), (0, 3));
    monitor.stop();
}

/// The requests that bring events, each with its channel; and how many ask for
/// acknowledgements on the first one's channel.
fn deliveries(requests: &[Request]) -> (Vec<(Vec<String>, &str)>, usize) {
    let channel = |request: &Request| request.header("x-splunk-request-channel").to_owned();
    let first = channel(&requests[0]);
    let asks = |it: &&Request| it.path.ends_with("/ack") && channel(it) == first;
    let brought = requests.iter().filter(|it| it.path.ends_with("/event"));
    let brought = brought.map(|it| (hec_events(it), it.header("x-splunk-request-channel")));
    (brought.collect(), requests.iter().filter(asks).count())
}

#[test]
fn what_splunk_never_acknowledges_is_delivered_again_on_another_channel() {
    // It took the alerts, was started anew, and knows of no acknowledgement on that channel.
    let forgotten = Arc::<Mutex<Option<String>>>::default();
    let receiver = Receiver::start(move |_, request| {
        let channel = request.header("x-splunk-request-channel").to_owned();
        let mut forgotten = forgotten.lock().unwrap();
        let is_forgotten = *forgotten.get_or_insert_with(|| channel.clone()) == channel;
        match request.path.ends_with("/ack") {
            true => answer(200, &json!({ "acks": { "0": !is_forgotten } })),
            false => answer(200, &json!({ "code": 0, "ackId": 0 })),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "kind = \"splunk\"\nurl = \"{}\"\ntoken = $\nack = true",
        receiver.url()
    );
    let config = config(folder.path(), &text);
    let store = Store::open(&folder.path().join("store.db")).unwrap();
    for n in 1..=3 {
        store.append(&alert(n)).unwrap();
    }
    // The sink waits for a minute by a clock that the test moves.
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (stop, stopped) = watch::channel(false);
    clock.block_on(async {
        let sinks = Sinks::start(&[config], &store, &stopped);
        let status = || sinks.statuses().pop().unwrap();
        let start = Instant::now();
        let mut told = None;
        while status().lag > 0 {
            // Real time for what goes over the network; a clock that is paused goes on by
            // itself only when nothing is under way.
            let pause = || std::thread::sleep(Duration::from_millis(2));
            tokio::task::spawn_blocking(pause).await.unwrap();
            tokio::time::advance(Duration::from_millis(100)).await;
            assert!(start.elapsed() < Duration::from_secs(180), "{:?}", status());
            if told.is_none() && status().last_error.is_some() {
                assert_eq!(status().cursor, 0, "nothing counts as delivered");
                told = status().last_error;
            }
        }
        assert!(start.elapsed() >= Duration::from_secs(60));
        let told = told.expect("it was told of");
        assert!(told.contains("did not acknowledge within 60 s"), "{told}");
        let status = status();
        assert_eq!(
            (status.cursor, status.retries, status.dead_letters),
            (3, 1, 0)
        );
        stop.send_replace(true);
        sinks.join().await.unwrap();
    });
    let requests = receiver.requests();
    let (brought, asked) = deliveries(&requests);
    let all: Vec<_> = (1..=3).map(id).collect();
    let [(first, old), (second, new)] = &brought[..] else {
        panic!("{} deliveries", brought.len());
    };
    assert_eq!((first, second), (&all, &all));
    assert_ne!(
        old, new,
        "what the old channel acknowledges late is not ours"
    );
    assert!(
        (2..=121).contains(&asked),
        "asked {asked} times in a minute"
    );
}

#[test]
fn what_splunk_took_before_it_could_not_be_asked_is_delivered_again() {
    // Between the delivery and the question it is started anew.
    let receiver = Receiver::start(|before, request| match request.path.ends_with("/ack") {
        true if before == 1 => answer(503, &json!({ "text": "Server is starting", "code": 9 })),
        true => answer(200, &json!({ "acks": { "0": true } })),
        false => answer(200, &json!({ "code": 0, "ackId": 0 })),
    });
    let sink = format!(
        "kind = \"splunk\"\nurl = \"{}\"\ntoken = $\nack = true",
        receiver.url()
    );
    let monitor = Monitor::start(&sink, 1..=2);
    monitor.wait_until_delivered();
    let status = monitor.status();
    assert_eq!((status.retries, status.dead_letters), (1, 0));
    monitor.stop();
    let requests = receiver.requests();
    let (brought, _) = deliveries(&requests);
    let both: Vec<_> = (1..=2).map(id).collect();
    let ids: Vec<_> = brought.into_iter().map(|(ids, _)| ids).collect();
    assert_eq!(ids, [both.clone(), both]);
}
