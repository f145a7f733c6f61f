//! Figures for the documents. Nothing here is held against a limit.

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::cluster::{Cluster, Target};
use crate::zips::{go, python};

/// The time until another node executes a function whose image it does not have yet.
async fn measure(programs: [(&str, Vec<u8>); 2]) {
    let _alone = crate::alone().await;
    let cluster = Cluster::of_environment();
    for (what, archive) in programs {
        let form = Form::new().part("code", Part::bytes(archive).file_name("figure.zip"));
        let submit = cluster.request(Target::Node(1), Method::POST, "/api/submit").multipart(form);
        let submitted = cluster.send(Target::Node(1), submit).await;
        assert!(submitted.is(200), "{:?} {}", submitted.status, submitted.body);
        let id = submitted.text("functionId");
        let path = format!("/api/execute?functionId={id}");
        let mut told = format!("{what}: submit {:.2?}", submitted.ended - submitted.began);
        for (node, call) in [(2, "first call on node 2"), (2, "second"), (1, "first call on node 1")] {
            let executed = cluster.get(Target::Node(node), &path).await;
            assert!(executed.is(200), "{:?} {}", executed.status, executed.body);
            told += &format!(", {call} {:.3?}", executed.ended - executed.began);
            if call.starts_with("first call on node 2") {
                told += &format!(" ({:.3?} from the submit's answer)", executed.ended - submitted.ended);
            }
        }
        eprintln!("{told}");
        let delete = cluster.request(Target::Node(3), Method::DELETE, &format!("/api/functions/{id}"));
        assert!(cluster.send(Target::Node(3), delete).await.is(200));
    }
}

#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn the_first_calls_of_python_functions_on_another_node() {
    let first = ("the first Python function", python("print('hello')"));
    measure([first, ("a later Python function", python("print('hello again')"))]).await;
}

/// The first Go function of an engine compiles the standard library.
#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn the_first_calls_of_go_functions_on_another_node() {
    let program = "import \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n";
    let first = ("the first Go function", go(program));
    measure([first, ("a later Go function", go(&program.replace("hello", "hello again")))]).await;
}
