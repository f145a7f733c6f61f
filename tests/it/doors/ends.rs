//! Connections end with their invocation, whatever the end.

use super::*;
use crate::support::{eventually, labelled};

/// Opens connections, and ends as the input says.
const MANY: &str = r#"
import os, signal, socket, time
held = []
for n in range(int(os.environ["COUNT"])):
    connection = socket.create_connection(("one.example", int(os.environ["PORT"])))
    connection.sendall(b"%s-%d\n" % (os.environ["ROUND"].encode(), n))
    held.append(connection)
if os.environ["END"] == "signal":
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ["END"] == "child":
    if os.fork():
        os._exit(0)
while os.environ["END"] in ("sleep", "child"):
    time.sleep(60)
"#;

fn input(server: &Server, count: u32, end: &str) -> Value {
    json!({"port": server.port, "count": count, "round": "round", "end": end})
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_stays_open_after_timeouts_kills_and_clients_that_leave() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[("EGRESS_ALLOW", &allow(&[&server]))]).await;
    let idle = eventually("the client's connections end", async || {
        (service.connections() == 0).then(|| service.descriptors_of_sockets())
    });
    let idle = idle.await;
    let rules = [format!("one.example:{}", server.port)];
    let function = service.deploy_with(python(MANY), &rules, &[("timeout", "5m")]).await;
    let all = async |count| {
        eventually("connections are served", async || (server.open() == count).then_some(())).await;
    };

    // More than are served at one time, and the rest waits.
    for end in ["signal", "child"] {
        let answer = service.execute_with(&function, input(&server, 70, end)).await;
        assert_eq!(answer.body["outcome"], if end == "signal" { "signal" } else { "ok" }, "{:#}", answer.body);
        all(0).await;
        let quiet = service.execute_with(&function, input(&server, 0, "")).await.assert_outcome(200, "ok");
        assert_eq!(quiet.body.get("network"), None);
    }
    let (answer, ()) = tokio::join!(service.execute_with(&function, input(&server, 64, "sleep")), async {
        all(64).await;
        assert_eq!(service.doors(), 1);
        docker(&["kill", &labelled(dir.path(), &["ps"]).concat()]);
    });
    answer.assert_outcome(500, "lost");
    all(0).await;
    let body = json!({"functionId": function, "input": input(&server, 64, "sleep")});
    let request = service.client.post(format!("{}/api/execute", service.url)).json(&body);
    let client = tokio::spawn(request.send());
    all(64).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    all(0).await;
    // Only this execution has a limit, within which the program must have opened its connections.
    let change = service.client.patch(format!("{}/api/functions/{function}", service.url));
    assert_eq!(change.json(&json!({"timeout": "15s"})).send().await.unwrap().status(), 200);
    let timed_out = service.execute_with(&function, input(&server, 70, "sleep")).await.assert_outcome(504, "timeout");
    assert_eq!(timed_out.body["network"][0]["connections"], 64);
    all(0).await;
    service.delete(&function).await.assert_status(200);
    eventually("nothing is open", async || {
        let is_idle = service.connections() == 0 && service.descriptors_of_sockets() <= idle;
        (service.doors() == 0 && is_idle).then_some(())
    })
    .await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn no_connection_of_a_killed_process_is_served_in_the_next_invocation() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [("EGRESS_ALLOW", &*allow(&[&server])), ("EGRESS_CONNECTIONS", "1")];
    let service = start(dir.path(), &settings).await;
    let rules = [format!("one.example:{}", server.port)];
    let function = service.deploy_with(python(MANY), &rules, &[]).await;
    let (mut served, mut warm) = (Vec::new(), 0);
    for round in 0..50 {
        let mut killed = input(&server, 4, "signal");
        killed["round"] = json!(format!("{round}"));
        let answer = service.execute_with(&function, killed).await.assert_outcome(500, "signal");
        served.push(answer.body["network"][0]["connections"].as_u64().unwrap_or_default() as usize);
        let quiet = service.execute_with(&function, input(&server, 0, "")).await.assert_outcome(200, "ok");
        assert!(quiet.body.get("network").is_none(), "{round}: {:#}", quiet.body);
        warm += usize::from(quiet.body["start"] == "warm");
    }
    // A busy machine may keep the thread of the doors from resetting in time what waits.
    assert!(warm >= 45, "the instance was kept {warm} times of 50");
    for (round, served) in served.into_iter().enumerate() {
        let lines = server.lines().into_iter().filter(|line| line.starts_with(&format!("{round}-"))).count();
        assert!(lines <= served, "{round}: {lines} of {served}");
    }
    service.delete_all(dir.path()).await;
}
