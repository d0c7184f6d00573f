//! Receivers that take a connection and never answer must not stand in the way of the others.

use crate::support::node::Setup;
use crate::support::peer::Upstream;
use crate::support::receiver::Receiver;
use crate::support::reply::Reply;

#[tokio::test]
async fn eight_receivers_that_hang_leave_places_for_a_ninth() {
    let (upstream, good) = (Upstream::start().await, Receiver::start().await);
    // Longer than the test: whoever waits for a hung one waits in vain.
    let node = Setup::new(&upstream).set("webhooks.timeout", "10m").start().await;
    let mut hung = Vec::new();
    for host in 2..10 {
        let receiver = Receiver::listen(&format!("127.0.0.{host}:0")).await;
        receiver.answers([Reply::silence()]);
        // More than one host may hold; four of them could hold every place there is.
        for _ in 0..70 {
            node.submit(node.get(&format!("/x?{}", receiver.query("/hook")))).await;
        }
        receiver.peer().wait_for_begun(4).await;
        hung.push(receiver);
    }

    for _ in 0..20 {
        let task = node.submit(node.get(&format!("/x?{}", good.query("/hook")))).await;
        good.wait_for_task(&task.id, 1).await;
    }
    for receiver in &hung {
        // Held all the while, not given up.
        assert!(receiver.peer().peak() <= 64 && receiver.peer().in_flight() >= 4);
    }
}
