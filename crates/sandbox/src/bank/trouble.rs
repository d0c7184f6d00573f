//! Trouble on demand: the mock user's name says what goes wrong. Pure.

use std::time::Duration;

use super::error::{Code, PROVIDER_ERROR, Refusal, TOO_MANY_REQUESTS};
use super::user::MockUser;

const SLOW: Duration = Duration::from_secs(8);
const FLAKY_FAILURES: u32 = 2;
const LIMITED_REFUSALS: u32 = 1;
const LIMITED_RETRY_AFTER_S: u32 = 2;

/// What becomes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Answer,
    AnswerAfter(Duration),
    Refuse(Refusal),
    /// Answer, but cut the connection in mid-body.
    Cut,
}

/// What becomes of `user`'s call when the bank sees the same request for the `time`-th time, from 1.
pub(crate) fn verdict(user: &MockUser, time: u32) -> Verdict {
    match user.name() {
        "flaky" if time <= FLAKY_FAILURES => Verdict::Refuse(PROVIDER_ERROR.into()),
        "limited" if time <= LIMITED_REFUSALS => {
            Verdict::Refuse(Refusal::retry_after(TOO_MANY_REQUESTS, LIMITED_RETRY_AFTER_S))
        }
        "slow" => Verdict::AnswerAfter(SLOW),
        "broken" => Verdict::Cut,
        name => match name.strip_prefix("error.") {
            Some(code) => Verdict::Refuse(Code::named(code).into()),
            None => Verdict::Answer,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::error::INTERNAL_SERVER_ERROR;

    fn times(name: &str) -> [Verdict; 4] {
        let user = MockUser::named(name).unwrap();
        [1, 2, 3, 1000].map(|time| verdict(&user, time))
    }

    #[test]
    fn each_troublesome_user_keeps_to_its_trouble() {
        let failure = Verdict::Refuse(PROVIDER_ERROR.into());
        assert_eq!(times("flaky"), [failure.clone(), failure, Verdict::Answer, Verdict::Answer]);
        let limited = times("limited");
        assert_eq!(limited[0], Verdict::Refuse(Refusal::retry_after(TOO_MANY_REQUESTS, 2)));
        assert_eq!(limited[1..], [Verdict::Answer, Verdict::Answer, Verdict::Answer]);
        assert!(times("broken").iter().all(|verdict| *verdict == Verdict::Cut));
        assert!(times("slow").iter().all(|verdict| *verdict == Verdict::AnswerAfter(SLOW)));
        assert!(times("john").iter().all(|verdict| *verdict == Verdict::Answer));
    }

    #[test]
    fn an_error_user_always_fails_with_its_code() {
        for (name, code) in [
            ("error.sca_exceeded", Code::named("sca_exceeded")),
            ("error.nonsense", INTERNAL_SERVER_ERROR),
            ("error.", INTERNAL_SERVER_ERROR),
        ] {
            assert!(times(name).iter().all(|verdict| *verdict == Verdict::Refuse(code.into())), "{name}");
        }
    }
}
