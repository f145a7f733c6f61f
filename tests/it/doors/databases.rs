//! Databases by a door, with drivers as programs use them: PostgreSQL with TLS, and Redis.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::authority::Authority;
use crate::support::process::free_port;
use crate::support::{Answer, Program, Service, postgres_at, zip};

/// An address of this machine that no other test's PostgreSQL has.
const ADDRESS: &str = "127.0.0.79";
/// Where Debian puts the source of the Go driver.
const DRIVER: &str = "/usr/share/gocode/src/github.com/lib/pq";

const POSTGRES: &str = r#"
import psycopg
parts = {"host": "db.example", "user": "youtube", "dbname": "postgres", "sslrootcert": "root.pem"}
with psycopg.connect(sslmode="verify-full", **parts) as connection:
    print(connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()[0])
    connection.execute("CREATE TEMPORARY TABLE t (n int, text text)")
    with connection.cursor().copy("COPY t FROM STDIN") as copy:
        for n in range(20_000):
            copy.write_row((n, "é" * 50))
    print(connection.execute("SELECT count(*), sum(n), sum(length(text)) FROM t").fetchone())
    with connection.cursor("by_parts") as cursor:
        print(len(cursor.execute("SELECT * FROM t").fetchall()))
    connection.execute("LISTEN news")
    connection.commit()
    with psycopg.connect(sslmode="disable", autocommit=True, **parts) as other:
        other.execute("NOTIFY news, 'of another connection'")
    print([notice.payload for notice in connection.notifies(timeout=10, stop_after=1)])
"#;

const REDIS: &str = r#"
import os, threading, redis
store = redis.Redis("cache.example", int(os.environ["PORT"]), password="secret", socket_timeout=10)
value = os.urandom(5_000_000)
store.set("large", value)
print(store.get("large") == value)
with store.pipeline() as pipeline:
    for _ in range(1000):
        pipeline.incr("count")
    print(pipeline.execute()[-1])
waiter = threading.Thread(target=lambda: print(store.blpop("list", 10)))
waiter.start()
store.rpush("list", "pushed")
waiter.join()
with store.pubsub(ignore_subscribe_messages=True) as channel:
    channel.subscribe("news")
    channel.get_message(timeout=10)
    print(store.publish("news", "published"), channel.get_message(timeout=10)["data"])
"#;

const GO: &str = r#"package main

import (
	"database/sql"
	"fmt"

	_ "github.com/lib/pq"
)

func main() {
	database, err := sql.Open("postgres", "host=db.example user=youtube dbname=postgres sslmode=verify-full sslrootcert=root.pem")
	if err != nil {
		panic(err)
	}
	database.SetMaxIdleConns(10)
	// Ten connections at once, each in a transaction of its own.
	var all []*sql.Tx
	for n := 0; n < 10; n++ {
		transaction, err := database.Begin()
		if err != nil {
			panic(err)
		}
		all = append(all, transaction)
	}
	sum := 0
	for n, transaction := range all {
		var length int
		if err := transaction.QueryRow("SELECT $1 + sum(n) FROM generate_series(1, 1000) AS n", n).Scan(&length); err != nil {
			panic(err)
		}
		sum += length
		transaction.Commit()
	}
	fmt.Println(sum, database.Stats().OpenConnections)
	fmt.Println(database.Ping(), database.Close())
}
"#;

/// The driver's files as a vendored module.
fn driver() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut packages = Vec::new();
    for folder in ["", "oid", "scram"] {
        let name = Path::new("github.com/lib/pq").join(folder);
        let name = name.to_str().unwrap().trim_end_matches('/').to_owned();
        let all = fs::read_dir(Path::new(DRIVER).join(folder)).expect("scripts/test-tools installs the driver");
        for path in all.map(|entry| entry.unwrap().path()) {
            let file = path.file_name().unwrap().to_str().unwrap();
            if file.ends_with(".go") && !file.ends_with("_test.go") {
                files.push((format!("vendor/{name}/{file}"), fs::read_to_string(&path).unwrap()));
            }
        }
        packages.push(name);
    }
    let module = format!("# github.com/lib/pq v1.10.0\n## explicit; go 1.13\n{}\n", packages.join("\n"));
    files.push(("vendor/modules.txt".to_owned(), module));
    let own = "module function\n\ngo 1.19\n\nrequire github.com/lib/pq v1.10.0\n";
    files.push(("go.mod".to_owned(), own.to_owned()));
    files
}

/// Expects the only destination of an execution, with so many connections.
fn assert_network(answer: &Answer, to: &str, connections: u64) {
    let network = answer.body["network"].as_array().unwrap();
    let destined = (&network[0]["to"], &network[0]["connections"], &network[0]["refused"]);
    assert_eq!((network.len(), destined), (1, (&json!(to), &json!(connections), &json!(0))), "{network:?}");
}

#[tokio::test]
#[ignore = "needs docker, PyPI, PostgreSQL and Debian's golang-github-lib-pq-dev"]
async fn postgres_is_used_with_tls_by_psycopg_and_database_sql() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "DNS:db.example");
    // PostgreSQL runs as a user of its own, and takes only a key that nobody else can read.
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let own = Command::new("chown").arg("postgres").arg(&authority.key).status().unwrap();
    assert!(own.success());
    let file = |name: &str, path: &Path| format!("{name}={}", path.display());
    let options =
        ["ssl=on".to_owned(), file("ssl_cert_file", &authority.certificate), file("ssl_key_file", &authority.key)];
    let _server = postgres_at(ADDRESS, &dir.path().join("postgres"), &options);
    let rule = "db.example:5432".to_owned();
    let settings = [("EGRESS_ALLOW", rule.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8")];
    let hosts = format!("127.0.0.1 localhost\n{ADDRESS} db.example\n");
    let service = Service::start_with_hosts(dir.path(), &settings, &hosts).await.healthy().await;
    let root = ("root.pem", authority.root.as_str());
    let requirements = ("requirements.txt", "psycopg==3.3.9\npsycopg-binary==3.3.9\n");
    let python = zip(&[("main.py", POSTGRES), requirements, root]);
    let driver = driver();
    let driver = driver.iter().map(|(name, content)| (name.as_str(), content.as_str()));
    let go = zip(&driver.chain([("main.go", GO), root]).collect::<Vec<_>>());
    let of_python = "True\n(20000, 199990000, 1000000)\n20000\n['of another connection']\n";
    let of_go = format!("{} 10\n<nil> <nil>\n", 500_500 * 10 + 45);
    for (zip, expected, connections) in [(python, of_python, 2), (go, of_go.as_str(), 10)] {
        let function = service.deploy_with(zip, std::slice::from_ref(&rule), &[]).await;
        let answer = service.execute(&function).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), expected);
        assert_network(&answer, &rule, connections);
    }
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker, PyPI and redis-server"]
async fn redis_is_used_with_large_values_pipelines_and_channels() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut server = Command::new("redis-server");
    server.args(["--bind", "127.0.0.1", "--requirepass", "secret", "--save", "", "--port", &port.to_string()]);
    let _server = Program::listen(server.current_dir(dir.path()), "127.0.0.1", port).await;
    let rule = format!("cache.example:{port}");
    let settings = [("EGRESS_ALLOW", rule.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8")];
    let hosts = "127.0.0.1 localhost cache.example\n";
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let python = zip(&[("main.py", REDIS), ("requirements.txt", "redis==8.1.0\n")]);
    let function = service.deploy_with(python, std::slice::from_ref(&rule), &[]).await;
    let answer = service.execute_with(&function, json!({"port": port})).await.assert_outcome(200, "ok");
    let expected = "True\n1000\n(b'list', b'pushed')\n1 b'published'\n";
    assert_eq!(answer.output(), expected);
    // One for the waiter and then for the channel, and one for all else.
    assert_network(&answer, &rule, 2);
    assert!(answer.body["network"][0]["sentBytes"].as_u64().unwrap() > 5_000_000);
    service.delete_all(dir.path()).await;
}
