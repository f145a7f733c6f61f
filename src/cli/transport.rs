//! A connection on which a failed write does not hide the answer.
//!
//! A service that refuses a large upload answers before all of it is there, and may close the connection while the rest
//! is still being written. The answer is here by then: ureq is told that the rest has left, and reads it.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Comes after the connector that makes connections.
#[derive(Debug)]
pub(super) struct AnswerFirst;

impl<In: Transport> Connector<In> for AnswerFirst {
    type Out = Answering<In>;

    fn connect(&self, _details: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Answering<In>>, Error> {
        Ok(made.map(|inner| Answering { inner, unwritten: None }))
    }
}

/// A connection, and the error that ended writing on it.
#[derive(Debug)]
pub(super) struct Answering<T> {
    inner: T,
    unwritten: Option<Error>,
}

impl<T: Transport> Transport for Answering<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.unwritten.is_none() {
            match self.inner.transmit_output(amount, timeout) {
                Err(error @ Error::Io(_)) => self.unwritten = Some(error),
                written => return written,
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        match self.inner.await_input(timeout) {
            Ok(true) => Ok(true),
            // Without an answer, the first error tells more.
            other => self.unwritten.take().map_or(other, Err),
        }
    }

    fn is_open(&mut self) -> bool {
        self.unwritten.is_none() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
