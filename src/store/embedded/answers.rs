//! The way of answers from the writer to those who wait: one wake-up for all that a commit answers.
//!
//! Waking a task of the runtime from another thread is a system call. The answers of a commit therefore
//! cross in one piece, and a task of the runtime gives them out, where waking costs next to nothing.
//! Whoever asked may have gone; what was written stays true.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::inbox::{AcceptReply, Inbox, Reply};
use crate::store::{Accepted, NewTask, Settled, StoreError};

/// What somebody who waits is to hear.
pub(super) enum Answer {
    Settled(Reply<Settled>, Result<Settled, StoreError>),
    Accepted(AcceptReply, Result<Accepted, StoreError>, Box<NewTask>),
}

impl Answer {
    fn give(self) {
        match self {
            Self::Settled(reply, settled) => drop(reply.send(settled)),
            Self::Accepted(reply, accepted, task) => drop(reply.send((accepted, task))),
        }
    }
}

/// The writer's end.
pub(super) struct AnswerSender(mpsc::UnboundedSender<Vec<Answer>>);

/// The other end. What is on its way is bounded by those who wait, each for one answer.
pub(super) struct AnswerReceiver(mpsc::UnboundedReceiver<Vec<Answer>>);

pub(super) fn channel() -> (AnswerSender, AnswerReceiver) {
    let (answers, receiver) = mpsc::unbounded_channel();
    (AnswerSender(answers), AnswerReceiver(receiver))
}

impl AnswerSender {
    /// Who waits hears at once that nobody answers if the other end is gone.
    pub fn send(&self, answers: Vec<Answer>) {
        if !answers.is_empty() {
            let _ = self.0.send(answers);
        }
    }
}

impl AnswerReceiver {
    /// Gives out what comes, and wakes the writer for whoever rings, until the writer is gone.
    pub async fn serve(mut self, inbox: Arc<Inbox>) {
        loop {
            tokio::select! {
                answers = self.0.recv() => match answers {
                    Some(answers) => answers.into_iter().for_each(Answer::give),
                    None => return,
                },
                () = inbox.bell() => inbox.wake(),
            }
        }
    }

    /// Gives out what is there.
    #[cfg(test)]
    pub fn give_now(&mut self) {
        while let Ok(answers) = self.0.try_recv() {
            answers.into_iter().for_each(Answer::give);
        }
    }
}
