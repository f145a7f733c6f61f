//! Figures for the documents. Nothing here is held against a limit.

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::cluster::{Cluster, Target};
use crate::zips::{go, python, zip};

#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn the_first_call_on_another_node_takes_the_image_there() {
    let _alone = crate::alone().await;
    let cluster = Cluster::of_environment();
    let go_program = "import \"fmt\"\n\nfunc main() { fmt.Println(\"hello\") }\n";
    let with_file = zip(&[("main.py", "print('hello')"), ("text", "another")]);
    let programs = [
        ("the first Python function", python("print('hello')")),
        ("the second Python function", with_file),
        ("the first Go function", go(go_program)),
        ("the second Go function", go(&go_program.replace("hello", "hello again"))),
    ];
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
