//! A PostgreSQL that is gone without a word: the machine has lost power, or the network drops all packets. Connections
//! stay open, and nothing comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use crate::held::HeldBuilds;
use crate::overview::event;
use crate::support::{Service, answer, eventually, postgres, python};

/// A server with several connections between a service and PostgreSQL. A connection belongs to the period in which the
/// connection was made, and carries bytes during that period only. In an odd period nothing is carried.
pub(crate) struct Network {
    pub(crate) url: String,
    /// The way to PostgreSQL past this server.
    direct: String,
    period: Arc<AtomicU64>,
}

impl Network {
    pub(crate) async fn new() -> Self {
        let direct = postgres::database(&format!("vanished-{}", uuid::Uuid::new_v4()));
        let (rest, folder) = direct.split_once("?host=").unwrap();
        let socket = PathBuf::from(folder).join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = rest.rsplit_once('/').unwrap().1;
        let url = format!("postgres://youtube@127.0.0.1:{port}/{database}?sslmode=disable");
        let period = Arc::new(AtomicU64::new(0));
        let network = Self { url, direct: direct.clone(), period: Arc::clone(&period) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = UnixStream::connect(&socket).await.unwrap();
                let made_in = period.load(Ordering::SeqCst);
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, Arc::clone(&period), made_in));
                tokio::spawn(carry(from_server, to_client, Arc::clone(&period), made_in));
            }
        });
        network
    }

    pub(crate) fn next_period(&self) {
        self.period.fetch_add(1, Ordering::SeqCst);
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    period: Arc<AtomicU64>,
    made_in: u64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if made_in % 2 == 1 || period.load(Ordering::SeqCst) != made_in {
            // Nobody learns of the end of the connection.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_postgres_that_is_gone_without_a_word_costs_bounded_time_and_nothing_after_that() {
    /// The limit of a question, and a busy machine.
    const BOUND: Duration = Duration::from_secs(45);
    let (network, dir) = (Network::new().await, tempfile::tempdir().unwrap());
    let settings = [("STORE_URL", network.url.as_str()), ("SECRETS_KEY", &"1a".repeat(32))];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("print('ran')")).await;
    // More requests than connections, all the time: some statements are on their way when the server goes.
    let requests = async |count: usize| {
        let requests = (0..count).map(async |_| {
            let began = Instant::now();
            let url = format!("{}/api/execute", service.url);
            let request = service.client.post(url).header("prefer", "respond-async").json(&json!({"functionId": id}));
            (answer(request).await, began.elapsed())
        });
        futures_util::future::join_all(requests).await
    };
    let (answers, ()) = tokio::join!(requests(60), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        network.next_period();
    });
    for (answer, time) in answers {
        assert!(answer.status == 202 || answer.status == 503, "{answer:?}");
        assert!(time < BOUND, "{time:?}");
    }
    eventually("the lease runs out", async || (service.get("/health").await.status == 503).then_some(())).await;
    for path in ["/api/functions".to_owned(), format!("/api/functions/{id}"), format!("/api/functions/{id}/settings")] {
        service.get(&path).await.assert_problem(503, "store_unavailable", "out of date");
    }
    let (answer, time) = requests(1).await.pop().unwrap();
    answer.assert_problem(503, "store_unavailable", "");
    assert!(time < BOUND, "{time:?}");
    // The overview says what is wrong, and has nothing that only the store knows.
    let overview = event(service.client.get(format!("{}/api/overview", service.url)), "overview").await;
    assert_eq!(
        (&overview["health"]["status"], &overview["nodes"]),
        (&json!("unavailable"), &Value::Null),
        "{overview}"
    );

    // Another server has the address: the connections of before stay dead.
    network.next_period();
    let began = Instant::now();
    eventually("the service is well", async || (service.get("/health").await.status == 200).then_some(())).await;
    let (answer, _) = requests(1).await.pop().unwrap();
    answer.assert_status(202);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    for (answer, _) in requests(30).await {
        let id = answer.assert_status(202).body["invocationId"].as_str().unwrap().to_owned();
        assert_eq!(service.ended(&id).await["outcome"], "ok");
    }
    service.delete(&id).await.assert_status(200);
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_key_that_could_not_be_given_back_is_free_for_other_nodes_when_postgres_is_back() {
    let (network, dirs) = (Network::new().await, [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let held = HeldBuilds::new(dirs[0].path());
    let path = held.path();
    let start = async |dir: &tempfile::TempDir, url: &str| {
        let key = "1a".repeat(32);
        let settings =
            [("STORE_URL", url), ("SECRETS_KEY", &key), ("CLUSTER_TOKEN", "between-the-nodes"), ("PATH", &path)];
        Service::start(dir.path(), &settings).await.healthy().await
    };
    let (first, second) = (start(&dirs[0], &network.url).await, start(&dirs[1], &network.direct).await);
    let submit = |service: &Service| HeldBuilds::submission(service, "print('ran')").header("idempotency-key", "k");
    let begun = tokio::spawn(answer(submit(&first)));
    held.begun().await;
    network.next_period();
    held.release();
    begun.await.unwrap().assert_problem(503, "store_unavailable", "");
    network.next_period();
    eventually("the node is well", async || (first.get("/health").await.status == 200).then_some(())).await;
    let id = answer(submit(&second)).await.assert_status(200).body["functionId"].as_str().unwrap().to_owned();
    assert_eq!(answer(submit(&first)).await.assert_status(200).body["functionId"].as_str(), Some(id.as_str()));
    first.delete(&id).await.assert_status(200);
    first.stop().await;
    second.abandon().await;
}
