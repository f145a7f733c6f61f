//! Figures for the documents. No figure here is held against a limit.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::cluster::{Cluster, FIRST_SUBMIT, Target};
use crate::zips::{go, python};

/// The number of functions of each language.
const FUNCTIONS: usize = 10;

/// The time of the first call of a function on another node, at once after the answer to the submit, and of a second
/// call there. `archive` makes the zip of a program that prints the number.
async fn measure(language: &str, archive: impl Fn(usize) -> Vec<u8>) {
    let _alone = crate::alone().await;
    let cluster = Cluster::of_environment();
    compiled(&cluster).await;
    let (mut first_calls, mut later) = (Vec::new(), Vec::new());
    for number in 0..FUNCTIONS {
        let form = Form::new().part("code", Part::bytes(archive(number)).file_name("figure.zip"));
        let submit =
            cluster.request(Target::Node(1), Method::POST, "/api/submit").multipart(form).timeout(FIRST_SUBMIT);
        let submitted = cluster.send(Target::Node(1), submit).await;
        assert!(submitted.is(200), "{:?} {}", submitted.status, submitted.body);
        let id = submitted.text("functionId");
        let path = format!("/api/execute?functionId={id}");
        let (first, second) = (cluster.get(Target::Node(2), &path).await, cluster.get(Target::Node(2), &path).await);
        for executed in [&first, &second] {
            assert!(executed.is(200), "{:?} {}", executed.status, executed.body);
            assert_eq!(executed.text("output"), format!("hello {number}\n"));
        }
        let (submit, first) = (submitted.ended - submitted.began, first.ended - first.began);
        eprintln!("{language} {number}: submit {submit:.2?}, first call on another node {first:.3?}");
        first_calls.push(first);
        later.push(second.ended - second.began);
        let delete = cluster.request(Target::Node(3), Method::DELETE, &format!("/api/functions/{id}"));
        assert!(cluster.send(Target::Node(3), delete).await.is(200));
    }
    let (first, rest) = first_calls.split_first_mut().unwrap();
    let (median, max) = median_and_max(rest);
    let (second, slowest) = median_and_max(&mut later);
    eprintln!(
        "{language}: first calls on another node take {first:.3?} for the first function, then median {median:.3?}, \
         max {max:.3?}; second calls there median {second:.3?}, max {slowest:.3?}"
    );
}

fn median_and_max(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn the_first_calls_of_python_functions_on_another_node() {
    measure("Python", |number| python(&format!("print('hello {number}')"))).await;
    let cluster = Cluster::of_environment();
    let runtime = |node: usize| {
        cluster.docker(node, &["images", "--no-trunc", "--quiet", "--filter", "reference=*/functions-runtime/python"])
    };
    assert!(!runtime(1).is_empty());
    assert_eq!(runtime(1), runtime(2), "a pull fetches a function's own layers where the nodes have one runtime image");
}

/// At its start each engine compiles Go's standard library, all on the processors of this machine. A call at that time
/// would measure the compilers.
async fn compiled(cluster: &Cluster) {
    let is_compiled = |node: usize| {
        let runtime = ["images", "--quiet", "--filter", "reference=*/functions-runtime/golang"];
        !cluster.docker(node, &runtime).is_empty()
    };
    let deadline = Instant::now() + FIRST_SUBMIT;
    while !(1..=3).all(is_compiled) {
        assert!(Instant::now() < deadline, "an engine has no runtime image of Go");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
#[ignore = "needs scripts/cluster"]
async fn the_first_calls_of_go_functions_on_another_node() {
    let program = |number| format!("import \"fmt\"\n\nfunc main() {{ fmt.Println(\"hello {number}\") }}\n");
    measure("Go", |number| go(&program(number))).await;
}
