//! From a plan that breaks a promise to a small one that does.

use super::plan::Plan;

/// Worlds that may be tried.
const TRIES: usize = 2_000;

/// The smallest plan found that `breaks` something, whatever it is.
pub(super) fn shrink(plan: &Plan, breaks: impl Fn(&Plan) -> bool) -> Plan {
    let mut smallest = plan.clone();
    let mut tries = 0;
    loop {
        let smaller = candidates(&smallest).into_iter().find(|candidate| {
            tries += 1;
            tries <= TRIES && breaks(candidate)
        });
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Plans that are a little simpler, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut simpler = Vec::new();
    for calls in without(&plan.calls).into_iter().filter(|calls| !calls.is_empty()) {
        simpler.push(Plan { calls, ..plan.clone() });
    }
    for events in without(&plan.events) {
        simpler.push(Plan { events, ..plan.clone() });
    }
    for troubles in without(&plan.house.troubles) {
        let house = super::plan::House { troubles, ..plan.house.clone() };
        simpler.push(Plan { house, ..plan.clone() });
    }
    for index in 0..plan.calls.len() {
        let mut with = |change: &dyn Fn(&mut super::plan::Call)| {
            let mut changed = plan.clone();
            change(&mut changed.calls[index]);
            if changed != *plan {
                simpler.push(changed);
            }
        };
        with(&|call| call.upstream.truncate(call.upstream.len().div_ceil(2)));
        with(&|call| call.receiver.truncate(call.receiver.len().div_ceil(2)));
        with(&|call| call.api = 0);
        with(&|call| call.key = None);
        with(&|call| call.host = None);
        with(&|call| call.long = false);
        with(&|call| call.watched = false);
        with(&|call| call.post = false);
    }
    for change in [
        (|plan: &mut Plan| plan.house.retry_delays.truncate(1)) as fn(&mut Plan),
        |plan| plan.house.webhook_delays.truncate(1),
        |plan| plan.house.keeps = None,
        |plan| plan.house.jitter = 0.0,
    ] {
        let mut changed = plan.clone();
        change(&mut changed);
        if changed != *plan {
            simpler.push(changed);
        }
    }
    simpler
}

/// The list without a half of it, without a quarter, … without one.
fn without<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    let sizes =
        std::iter::successors(Some(list.len().div_ceil(2)), |size| (*size > 1).then(|| size.div_ceil(2)));
    let cuts = sizes
        .filter(|size| *size > 0)
        .flat_map(|size| (0..list.len()).step_by(size).map(move |start| (start, size)));
    cuts.map(|(start, size)| {
        let mut rest = list.to_vec();
        rest.drain(start..(start + size).min(list.len()));
        rest
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shrinks_to_what_breaks_the_promise() {
        let plan = (0..1_000)
            .map(Plan::from_seed)
            .find(|plan| plan.calls.len() > 20 && plan.events.len() > 4)
            .unwrap();
        let (call, event) = (plan.calls[13].number, plan.events[2]);
        let small = shrink(&plan, |plan| {
            plan.calls.iter().any(|call_| call_.number == call) && plan.events.contains(&event)
        });
        assert_eq!((small.calls.len(), small.events.as_slice()), (1, &[event][..]));
        assert_eq!((small.calls[0].number, small.calls[0].upstream.len()), (call, 1));
    }
}
