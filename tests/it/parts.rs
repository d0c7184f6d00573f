//! Parts of results and conditional requests (RFC 9110, 13 and 14).

use http::Method;

use crate::support::client::{Answer, Call};
use crate::support::node::{Node, Setup, Task};
use crate::support::peer::Upstream;
use crate::support::reply::Reply;

const CHUNK: usize = 256 * 1024;
const LAST_MODIFIED: &str = "Sat, 29 Oct 1994 19:43:31 GMT";

/// Bytes whose every stretch is another one.
fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

async fn finished(reply: Reply) -> (Upstream, Node, Task) {
    let upstream = Upstream::start().await;
    upstream.always([reply]);
    let node = Node::start(&upstream).await;
    let task = node.submit(node.get("/file?async=true")).await;
    node.finished(&task).await;
    (upstream, node, task)
}

fn file(body: Vec<u8>) -> Reply {
    let reply = Reply::new(200).header("content-type", "application/octet-stream");
    reply.header("etag", "\"v1\"").header("last-modified", LAST_MODIFIED).body(body)
}

/// The parts of a multipart answer: their content range and bytes.
#[track_caller]
fn multipart(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let kind = answer.header("content-type").expect("a type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("byteranges");
    let (start, between) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}"));
    let mut rest = answer.body.strip_prefix(start.as_bytes()).expect("the first boundary");
    let find = |rest: &[u8], what: &[u8]| rest.windows(what.len()).position(|window| window == what);
    let mut parts = Vec::new();
    loop {
        let head = find(rest, b"\r\n\r\n").expect("the end of a part's head");
        let fields = std::str::from_utf8(&rest[..head]).expect("text").to_lowercase();
        assert!(fields.contains("content-type: application/octet-stream"), "{fields}");
        let range = fields.split("content-range: ").nth(1).expect("a range").trim().to_owned();
        rest = &rest[head + 4..];
        let end = find(rest, between.as_bytes()).expect("the next boundary");
        parts.push((range, rest[..end].to_vec()));
        rest = &rest[end + between.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("the end of the boundary's line");
    }
}

#[tokio::test]
async fn a_range_is_the_slice_of_the_whole_wherever_chunks_end() {
    let whole = bytes(u32::try_from(3 * CHUNK + 17).expect("small"));
    let length = whole.len();
    let (_upstream, node, task) = finished(file(whole.clone())).await;
    for (first, last) in [
        (0, 0),
        (0, length - 1),
        (5, 99),
        (CHUNK - 1, CHUNK),
        (CHUNK, CHUNK),
        (CHUNK, 2 * CHUNK - 1),
        (1, 3 * CHUNK),
        (3 * CHUNK, length - 1),
        (length - 1, length - 1),
        (2 * CHUNK + 3, length + 1_000_000),
    ] {
        let answer = node.results(&task).header("range", &format!("bytes={first}-{last}")).send().await;
        let last = last.min(length - 1);
        assert_eq!(answer.status, 206, "{first}-{last}");
        assert!(answer.body == whole[first..=last], "{first}-{last}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes {first}-{last}/{length}").as_str()));
        assert_eq!(answer.header("content-length"), Some((last - first + 1).to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(
            (answer.header("etag"), answer.header("ringback-status")),
            (Some("\"v1\""), Some("Succeeded"))
        );
    }
    let tail = node.results(&task).header("range", "bytes=-20").send().await;
    assert!(tail.status == 206 && tail.body == whole[length - 20..]);
    let rest = node.results(&task).header("range", &format!("bytes={}-", CHUNK + 1)).send().await;
    assert!(rest.status == 206 && rest.body == whole[CHUNK + 1..]);
    let all = node.results(&task).send().await;
    assert_eq!((all.status, all.header("accept-ranges")), (200, Some("bytes")));
    assert!(all.body == whole);
}

#[tokio::test]
async fn several_ranges_come_as_parts_in_their_order() {
    let whole = bytes(u32::try_from(2 * CHUNK + 17).expect("small"));
    let length = whole.len();
    let (_upstream, node, task) = finished(file(whole.clone())).await;
    let range = format!("bytes={}-{}, 0-4,-3, 99999999-", CHUNK - 2, CHUNK + 1);
    let answer = node.results(&task).header("range", &range).send().await;
    assert_eq!((answer.status, answer.header("content-range")), (206, None));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let expected = [CHUNK - 2..CHUNK + 2, 0..5, length - 3..length];
    let expected = expected
        .map(|part| (format!("bytes {}-{}/{length}", part.start, part.end - 1), whole[part].to_vec()));
    assert_eq!(multipart(&answer), expected);
}

#[tokio::test]
async fn a_range_out_of_bounds_is_refused_with_the_length() {
    let (_upstream, node, task) = finished(file(bytes(10))).await;
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-100, 11-"] {
        let answer = node.results(&task).header("range", range).send().await;
        answer.is_refusal(416, "range_not_satisfiable");
        assert_eq!(answer.header("content-range"), Some("bytes */10"), "{range}");
    }
    let (_upstream, node, empty) = finished(Reply::new(200)).await;
    node.results(&empty).header("range", "bytes=0-").send().await.is_refusal(416, "range_not_satisfiable");
}

#[tokio::test]
async fn ranges_that_are_malformed_foreign_or_greedy_get_the_whole() {
    let whole = bytes(10);
    let (_upstream, node, task) = finished(file(whole.clone())).await;
    let many = format!("bytes={}", "0-0,".repeat(100));
    for range in
        ["", "bytes", "bytes=", "bytes=a-b", "bytes=5-4", "bytes=-", "items=0-1", "0-1", "bytes=0-,0-", &many]
    {
        let answer = node.results(&task).header("range", range).send().await;
        assert_eq!((answer.status, &answer.body), (200, &whole.clone().into()), "{range}");
    }
    let twice = node.results(&task).header("range", "bytes=0-1").header("range", "bytes=2-3").send().await;
    assert_eq!(twice.status, 200);
    let head = node.call(Method::HEAD, task.path()).header("range", "bytes=0-1").send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

#[tokio::test]
async fn if_range_gives_the_part_only_of_what_the_client_has() {
    let (_upstream, node, task) = finished(file(bytes(10))).await;
    let status = async |validator: &str| {
        let call = node.results(&task).header("range", "bytes=0-1").header("if-range", validator);
        call.send().await.status
    };
    for validator in ["\"v1\"", LAST_MODIFIED] {
        assert_eq!(status(validator).await, 206, "{validator}");
    }
    for validator in ["\"v2\"", "W/\"v1\"", "Sun, 30 Oct 1994 19:43:31 GMT", "nonsense", ""] {
        assert_eq!(status(validator).await, 200, "{validator}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_result_gets_304() {
    let (_upstream, node, task) = finished(file(bytes(10))).await;
    let cases = [
        ("if-none-match", "\"v1\""),
        ("if-none-match", "\"x\", W/\"v1\""),
        ("if-none-match", "*"),
        ("if-modified-since", LAST_MODIFIED),
        ("if-modified-since", "Sat, 06 Nov 2094 08:49:37 GMT"),
    ];
    for (name, value) in cases {
        for method in [Method::GET, Method::HEAD] {
            let answer = node.call(method, task.path()).header(name, value).send().await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{name}: {value}");
            assert_eq!(answer.header("etag"), Some("\"v1\""));
            assert_eq!((answer.header("content-type"), answer.header("content-length")), (None, None));
            assert_eq!(answer.header("ringback-status"), Some("Succeeded"));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        }
    }
    for (name, value) in [
        ("if-none-match", "\"v2\""),
        ("if-none-match", "v1"),
        ("if-modified-since", "yesterday"),
        ("if-modified-since", "Fri, 28 Oct 1994 19:43:31 GMT"),
    ] {
        assert_eq!(node.results(&task).header(name, value).send().await.status, 200, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_refused() {
    let (_upstream, node, task) = finished(file(bytes(10))).await;
    let call = |name: &str, value: &str| node.results(&task).header(name, value);
    for (name, value) in [("if-match", "\"v2\""), ("if-unmodified-since", "Fri, 28 Oct 1994 19:43:31 GMT")] {
        call(name, value).send().await.is_refusal(412, "precondition_failed");
    }
    assert_eq!(call("if-match", "\"v1\"").send().await.status, 200);
}

#[tokio::test]
async fn results_without_a_tag_of_the_upstream_get_one() {
    let revisit = async |reply: Reply| {
        let (_upstream, node, task) = finished(reply).await;
        let tag = node.results(&task).send().await.header("etag").map(str::to_owned).expect("a tag");
        assert!(tag.contains(&task.id));
        let again = |call: Call| call.header("if-none-match", &tag);
        assert_eq!(again(node.results(&task)).send().await.status, 304);
    };
    revisit(Reply::ok("done")).await;
    revisit(Reply::new(404)).await;
}

#[tokio::test]
async fn a_waiting_task_is_never_304_and_never_partial() {
    let upstream = Upstream::start().await;
    upstream.always([Reply::silence()]);
    let node = Setup::new(&upstream).start().await;
    let task = node.submit(node.get("/accounts?async=true")).await;
    let call = node.results(&task).header("if-none-match", "*").header("range", "bytes=0-1");
    assert_eq!(call.send().await.status, 202);
}

#[tokio::test]
async fn a_decoded_result_has_no_parts() {
    // Empty in gzip: its header, an empty block, no bytes.
    let gzip = [31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (_upstream, node, task) =
        finished(Reply::new(200).header("content-encoding", "gzip").body(gzip.to_vec())).await;
    let part = node.results(&task).header("range", "bytes=0-1").send().await;
    assert_eq!((part.status, part.body.as_ref()), (206, &gzip[..2]), "as stored it has");
    let call = node.results(&task).header("range", "bytes=0-1").header("accept-encoding", "identity");
    let decoded = call.send().await;
    assert_eq!((decoded.status, decoded.body.len(), decoded.header("accept-ranges")), (200, 0, None));
}

#[tokio::test]
async fn why_a_task_failed_is_always_told_whole() {
    let (_upstream, node, task) = finished(Reply::new(404).header("etag", "\"v1\"")).await;
    for range in ["bytes=0-1", "bytes=99999-", "nonsense"] {
        let answer = node.results(&task).header("range", range).send().await;
        assert_eq!((answer.status, answer.header("ringback-status")), (200, Some("Failed")), "{range}");
        assert_eq!(
            (answer.header("accept-ranges"), &answer.json()["error"]),
            (None, &"upstream_error".into())
        );
    }
}

#[tokio::test]
async fn a_weak_tag_of_the_upstream_never_permits_a_part() {
    let (_upstream, node, task) = finished(Reply::ok("0123456789").header("etag", "W/\"v1\"")).await;
    for validator in ["W/\"v1\"", "\"v1\""] {
        let call = node.results(&task).header("range", "bytes=0-1").header("if-range", validator);
        assert_eq!(call.send().await.status, 200, "{validator}");
    }
    assert_eq!(node.results(&task).header("if-none-match", "\"v1\"").send().await.status, 304);
}
