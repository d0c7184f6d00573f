use super::*;
use crate::client::scripted::{OK, Peer, Server};
use crate::config::SignatureScheme;
use crate::guard::tests::{config, loopback_config};
use crate::signing::tests::signer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const BODY: &str = "{\"task_id\":\"x\"}";

fn message() -> Message {
    let id = "019a3f00-0000-7000-8000-000000000001".parse().unwrap();
    Message::new(id, Timestamp(1_700_000_000_999), Bytes::from_static(BODY.as_bytes()))
}

fn sender() -> WebhookSender {
    WebhookSender::new(&loopback_config(), Names::system(), signer(&[SignatureScheme::V1]))
}

fn uri(server: &Server, target: &str) -> WebhookUri {
    let text = format!("http://{}{target}", server.address());
    WebhookUri::parse(&text, &Rules::new(&loopback_config())).ok().unwrap()
}

fn failed(why: DeliveryFailure) -> DeliveryOutcome {
    DeliveryOutcome::Failed { why }
}

async fn receive(server: &Server, response: &str) -> (String, Peer<TcpStream>) {
    let mut peer = server.accept().await;
    let request = peer.read_until(BODY).await;
    peer.write(response).await;
    (request, peer)
}

/// The value of `webhook-signature` in a request.
fn signature(request: &str) -> &str {
    let mut lines = request.split("\r\n");
    lines.find_map(|line| line.strip_prefix("webhook-signature: ")).unwrap()
}

#[tokio::test]
async fn a_webhook_signed_early_leaves_with_those_signatures() {
    let server = Server::start().await;
    let (mut sender, uri, message) = (sender(), uri(&server, "/"), Arc::new(message()));
    let early = sender.sign_early(&message);
    early();
    let signed = message.signed_early.get().unwrap().as_str().to_owned();
    // Nothing else could have signed: the sender itself has no schemes now, and the same keys.
    sender.signer = sender.signer.with_schemes(&[]);
    let (_, (request, _)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, OK));
    assert_eq!(signature(&request), signed);
}

#[test]
fn a_message_that_waited_or_whose_clock_was_set_back_gets_the_time_of_now_and_no_early_signature() {
    let message = Arc::new(message());
    sender().sign_early(&message)();
    for moved in [0, 1_000, -1_000] {
        assert!(message.unless_fresh(Timestamp(message.sent_at.0 + moved)).is_none());
    }
    for moved in [1_001, -1_001, 86_400_000] {
        let now = Timestamp(message.sent_at.0 + moved);
        let anew = message.unless_fresh(now).unwrap();
        assert_eq!((anew.id, anew.sent_at, &anew.body), (message.id, now, &message.body));
        assert!(anew.signed_early.get().is_none());
    }
}

#[tokio::test]
async fn keys_replaced_since_a_webhook_was_signed_early_sign_it_anew() {
    let server = Server::start().await;
    let (sender, uri, message) = (sender(), uri(&server, "/"), Arc::new(message()));
    sender.sign_early(&message)();
    let other = crate::signing::Generation::new(Timestamp(0), &[9; 32], &[9; 32]);
    sender.signer.replace(crate::signing::SigningKeys::first(other));
    let (_, (request, _)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, OK));
    let expected = sender.signer.sign(message.id, message.sent_at, BODY.as_bytes());
    assert_eq!(signature(&request), expected.as_str());
    assert_ne!(signature(&request), message.signed_early.get().unwrap().as_str());
}

#[tokio::test]
async fn a_webhook_is_a_post_of_the_exact_body_to_the_exact_uri() {
    let server = Server::start().await;
    let (sender, uri, message) = (sender(), uri(&server, "/a/../hook?key=%41+b"), message());
    let (outcome, (request, _)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, OK));
    assert_eq!(outcome, DeliveryOutcome::Delivered { status: 200 });
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /a/../hook?key=%41+b HTTP/1.1");
    lines.sort_unstable();
    let expected = [
        "content-length: 15".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: {}", server.address()),
        format!("user-agent: Ringback/{}", env!("CARGO_PKG_VERSION")),
        "webhook-id: 019a3f00-0000-7000-8000-000000000001".to_owned(),
        format!(
            "webhook-signature: {}",
            signer(&[SignatureScheme::V1]).sign(message.id, message.sent_at, BODY.as_bytes()).as_str()
        ),
        "webhook-timestamp: 1700000000".to_owned(),
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, BODY);
}

#[tokio::test]
async fn every_two_hundred_is_delivered_and_nothing_else_is() {
    let server = Server::start().await;
    for status in [200, 202, 204, 299, 300, 301, 302, 304, 307, 400, 404, 410, 429, 500, 503, 599] {
        let (sender, uri, message) = (sender(), uri(&server, "/"), message());
        let response = format!("HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        let (outcome, _) = tokio::join!(sender.deliver(&uri, &message), receive(&server, &response));
        let expected = if (200..300).contains(&status) {
            DeliveryOutcome::Delivered { status }
        } else {
            failed(DeliveryFailure::HttpStatus(status))
        };
        assert_eq!(outcome, expected);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, elsewhere) = (Server::start().await, Server::start().await);
    let (sender, uri, message) = (sender(), uri(&server, "/"), message());
    let response =
        format!("HTTP/1.1 307 X\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address());
    let (outcome, _) = tokio::join!(sender.deliver(&uri, &message), receive(&server, &response));
    assert_eq!(outcome, failed(DeliveryFailure::HttpStatus(307)));
    let own = TcpStream::connect(elsewhere.address()).await.unwrap();
    let first = elsewhere.accept().await.0.peer_addr().unwrap();
    assert_eq!(first, own.local_addr().unwrap(), "somebody else came first");
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_a_timeout() {
    let server = Server::start().await;
    let config = WebhooksConfig { timeout: Duration::from_millis(50), ..loopback_config() };
    let (sender, uri, message) =
        (WebhookSender::new(&config, Names::system(), signer(&[])), uri(&server, "/"), message());
    let (outcome, (_, mut peer)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, ""));
    assert_eq!(outcome, failed(DeliveryFailure::Timeout));
    peer.closed().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_is_unreachable() {
    let server = Server::start().await;
    let uri = uri(&server, "/");
    drop(server);
    assert_eq!(sender().deliver(&uri, &message()).await, failed(DeliveryFailure::Unreachable));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_broken() {
    let server = Server::start().await;
    let (sender, uri, message) = (sender(), uri(&server, "/"), message());
    let script = async { receive(&server, "HTTP/1.1 20").await.1.reset() };
    let (outcome, ()) = tokio::join!(sender.deliver(&uri, &message), script);
    assert_eq!(outcome, failed(DeliveryFailure::Broken));
}

#[tokio::test]
async fn a_receiver_that_is_denied_at_connecting_is_not_called() {
    let server = Server::start().await;
    let strict = WebhookSender::new(
        &WebhooksConfig { allow_http: true, ports: vec![server.address().port()], ..config() },
        Names::system(),
        signer(&[]),
    );
    let outcome = strict.deliver(&uri(&server, "/"), &message()).await;
    assert_eq!(outcome, failed(DeliveryFailure::AddressDenied("loopback")));
    let codes =
        [DeliveryFailure::AddressDenied("loopback"), DeliveryFailure::Broken, DeliveryFailure::Timeout];
    assert_eq!(codes.map(DeliveryFailure::code), ["address_denied", "broken", "timeout"]);
}

#[tokio::test]
async fn an_answer_of_ordinary_length_leaves_the_connection_usable() {
    let server = Server::start().await;
    let (sender, uri, message) = (sender(), uri(&server, "/"), message());
    let (_, (_, mut peer)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, OK));
    while sender.client.idle() == 0 {
        tokio::task::yield_now().await;
    }
    let (outcome, ()) = tokio::join!(sender.deliver(&uri, &message), async {
        peer.read_until(BODY).await;
        peer.write(OK).await;
    });
    assert_eq!(outcome, DeliveryOutcome::Delivered { status: 200 });
}

#[tokio::test]
async fn an_answer_without_end_is_delivered_and_its_connection_closed() {
    let server = Server::start().await;
    // So long that only the limit of bytes can end it.
    let config = WebhooksConfig { timeout: Duration::from_hours(1), ..loopback_config() };
    let (sender, uri, message) =
        (WebhookSender::new(&config, Names::system(), signer(&[])), uri(&server, "/"), message());
    let endless = "HTTP/1.1 200 OK\r\n\r\n";
    let script = async {
        let (_, mut peer) = receive(&server, endless).await;
        while peer.0.write_all(&[b'x'; 4096]).await.is_ok() {}
    };
    let (outcome, ()) = tokio::join!(sender.deliver(&uri, &message), script);
    assert_eq!(outcome, DeliveryOutcome::Delivered { status: 200 });
}

#[tokio::test]
async fn an_answer_that_trickles_past_the_limit_is_what_its_status_says() {
    let server = Server::start().await;
    let config = WebhooksConfig { timeout: Duration::from_millis(200), ..loopback_config() };
    let (sender, uri, message) =
        (WebhookSender::new(&config, Names::system(), signer(&[])), uri(&server, "/"), message());
    let trickle = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx";
    let (outcome, (_, mut peer)) = tokio::join!(sender.deliver(&uri, &message), receive(&server, trickle));
    assert_eq!(outcome, DeliveryOutcome::Delivered { status: 200 });
    peer.closed().await;
}
