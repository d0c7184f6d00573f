//! Streams in paused time, before an identity service that is played.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::config::{ClientAuth, IdentityConfig, IdentityMode};
use crate::id::Seq;
use crate::identity::{Exchange, FetchError, Reach};
use crate::secret::FingerprintKey;
use crate::task::FinalStatus;
use crate::watch::Watches;

const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the API says of the token from its n-th question on, counted from 1.
type Says = fn(usize) -> Result<u16, FetchError>;

struct Played {
    asked: Arc<AtomicUsize>,
    watches: Arc<Watches>,
    body: GatewayBody,
    stop: CancellationToken,
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The date, in paused time too.
fn wall() -> Timestamp {
    let began = BEGAN.get().unwrap_or_else(Instant::now);
    BEGAN.set(Some(began));
    Timestamp(1_800_000_000_000).after(began.elapsed())
}

fn identity(asked: &Arc<AtomicUsize>, says: Says, max_cache: Duration) -> Arc<Identity> {
    let asked = Arc::clone(asked);
    let api: Exchange = Arc::new(move |_, _| {
        let said = says(asked.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::from_u16(said?).unwrap();
            Ok(response)
        }
        .boxed()
    });
    let config = IdentityConfig {
        mode: IdentityMode::Opaque,
        header: String::from("Authorization"),
        jwks_url: None,
        jwks_file: None,
        issuer: None,
        audience: None,
        claim: String::from("sub"),
        introspection_url: None,
        client_id: None,
        client_secret: None,
        client_secret_file: None,
        client_auth: ClientAuth::Basic,
        path: Some(String::from("/me")),
        pointer: None,
        revalidate: true,
        timeout: Duration::from_secs(5),
        max_cache,
    };
    let reach = Reach {
        fetch: Arc::new(|_, _| async { Err(FetchError::Unreachable) }.boxed()),
        service: Arc::clone(&api),
        upstream: api,
    };
    Arc::new(Identity::new(&config, "bank", &FingerprintKey::new([1; 32]), reach).unwrap())
}

/// A stream of a running task, its caller just let in by the first question.
async fn stream(says: Says, max_cache: Duration) -> Played {
    let asked = Arc::default();
    let identity = identity(&asked, says, max_cache);
    let mut credential = HeaderMap::new();
    credential.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"));
    let caller = identity.identify(&credential, wall()).await.unwrap();
    let (watches, stop) = (Arc::new(Watches::new(10)), CancellationToken::new());
    let follow = Follow {
        id: "01a2075d-baa0-7000-8000-e0dbc55897d8".parse().unwrap(),
        clock: Clock::by(wall),
        known: Progress::running(1),
        waiter: watches.wait_for(Seq(1)),
        heartbeat: HEARTBEAT,
        next_beat: Instant::now() + HEARTBEAT / 2,
        token_ends: None,
        reader: Reader { identity, credential, credentials_id: caller.credentials_id },
        stop: stop.clone(),
    };
    let mut played = Played { asked, watches, body: follow.into_body(), stop };
    assert!(played.next().await.unwrap().contains("Running"));
    played
}

impl Played {
    async fn next(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const STILL_HERE: &str = ": still here\n\n";

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_revoked_token_ends_with_the_next_sign_of_life() {
    let mut played = stream(|number| Ok(if number < 3 { 200 } else { 401 }), Duration::ZERO).await;
    let began = Instant::now();
    assert_eq!(played.next().await.as_deref(), Some(STILL_HERE));
    assert_eq!(played.next().await, Some(end("token_refused")));
    assert_eq!(played.next().await, None);
    assert!(began.elapsed() < 2 * HEARTBEAT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_believed_of_a_token_is_not_asked_with_every_sign_of_life() {
    let mut played = stream(|_| Ok(200), Duration::from_mins(1)).await;
    for _ in 0..40 {
        assert_eq!(played.next().await.as_deref(), Some(STILL_HERE));
    }
    assert_eq!(played.asked(), 10, "once a minute in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_an_identity_service_that_is_away_and_tells_nothing_meanwhile() {
    let away: Says = |number| match number {
        2..=4 => Err(FetchError::Unreachable),
        _ => Ok(200),
    };
    let mut played = stream(away, Duration::ZERO).await;
    for _ in 0..5 {
        assert_eq!(played.next().await.as_deref(), Some(STILL_HERE));
    }
    assert_eq!(played.asked(), 6);
    played.watches.tell(Seq(1), Progress::ended(FinalStatus::Succeeded, 1));
    assert!(played.next().await.unwrap().contains("Succeeded"));

    let mut played = stream(away, Duration::ZERO).await;
    played.watches.tell(Seq(1), Progress::ended(FinalStatus::Succeeded, 1));
    assert_eq!(played.next().await, Some(end("identity_unavailable")));
}

#[tokio::test(start_paused = true)]
async fn changes_do_not_put_off_the_next_sign_of_life() {
    let mut played = stream(|_| Ok(200), Duration::ZERO).await;
    let mut beats = 0;
    for attempt in 2..32 {
        played.watches.tell(Seq(1), Progress::running(attempt));
        let until = Instant::now() + HEARTBEAT / 3;
        while let Ok(Some(said)) = tokio::time::timeout_at(until, played.next()).await {
            beats += usize::from(said == STILL_HERE);
        }
    }
    assert_eq!(beats, 10, "in ten times that pause");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_node_while_its_token_is_asked_about() {
    let mut played = stream(|_| Ok(200), Duration::ZERO).await;
    played.stop.cancel();
    assert_eq!(played.next().await, Some(end("stopping")));
}

proptest! {
    #[test]
    fn nobody_but_the_owner_is_told_a_change(change: bool, verdict in 0..4) {
        let caller = |id: &str| Caller { credentials_id: id.into(), expires_at: None };
        let occasion = if change { Occasion::Change } else { Occasion::SignOfLife };
        let (verdict, going_on) = match verdict {
            0 => (Ok(caller("john")), true),
            1 => (Ok(caller("jane")), false),
            2 => (Err(Rejection::InvalidToken("It is revoked.".into())), false),
            _ => (Err(Rejection::Unavailable), !change),
        };
        prop_assert_eq!(judge(occasion, verdict, "john").is_ok(), going_on);
    }
}
