//! What the streams of commands and those of queries differ in.

use std::fmt::Debug;

use tonic::{Response, Status, Streaming};

use super::super::error::Failure;
use super::super::retry::Timed;
use super::{Answer, Outgoing};
use crate::v1::{self, client_client::ClientClient};

/// What travels over a line.
pub(in super::super) trait Traffic: Debug + Send + Sync + 'static {
    type Request: Debug + Send + 'static;
    type Response: Debug + Send + 'static;
    /// A request in a message.
    type Tagged;
    type Message: Send + 'static;
    type Answers: Send + 'static;

    /// What is counted of a request.
    fn bytes(request: &Self::Request) -> usize;

    fn tagged(tag: u64, request: Self::Request, timeout_ms: u64) -> Self::Tagged;

    fn message(requests: Vec<Self::Tagged>) -> Self::Message;

    fn open(
        service: ClientClient<Timed>,
        outgoing: Outgoing<Self>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Answers>>, Status>> + Send
    where
        Self: Sized;

    /// Answers with their tags.
    fn answers(message: Self::Answers) -> impl Iterator<Item = (u64, Answer<Self>)>
    where
        Self: Sized;
}

/// `ApplyStream`.
#[derive(Debug)]
pub(in super::super) enum Commands {}

impl Traffic for Commands {
    type Request = v1::ApplyRequest;
    type Response = v1::ApplyResponse;
    type Tagged = v1::TaggedCommand;
    type Message = v1::ApplyStreamRequest;
    type Answers = v1::ApplyStreamResponse;

    fn bytes(request: &v1::ApplyRequest) -> usize {
        request.command.len()
    }

    fn tagged(tag: u64, request: v1::ApplyRequest, timeout_ms: u64) -> v1::TaggedCommand {
        v1::TaggedCommand { tag, request: Some(request), timeout_ms }
    }

    fn message(commands: Vec<v1::TaggedCommand>) -> v1::ApplyStreamRequest {
        v1::ApplyStreamRequest { commands }
    }

    async fn open(
        mut service: ClientClient<Timed>,
        outgoing: Outgoing<Commands>,
    ) -> Result<Response<Streaming<v1::ApplyStreamResponse>>, Status> {
        service.apply_stream(outgoing).await
    }

    fn answers(message: v1::ApplyStreamResponse) -> impl Iterator<Item = (u64, Answer<Commands>)> {
        use v1::tagged_result::Result as Tagged;
        message.results.into_iter().map(|result| {
            let answer = match result.result {
                Some(Tagged::Response(response)) => Ok(response),
                Some(Tagged::Error(error)) => Err(Failure::from_stream(&error)),
                None => Err(without_result()),
            };
            (result.tag, answer)
        })
    }
}

/// `QueryStream`.
#[derive(Debug)]
pub(in super::super) enum Queries {}

impl Traffic for Queries {
    type Request = v1::QueryRequest;
    type Response = v1::QueryResponse;
    type Tagged = v1::TaggedQuery;
    type Message = v1::QueryStreamRequest;
    type Answers = v1::QueryStreamResponse;

    fn bytes(request: &v1::QueryRequest) -> usize {
        request.query.len()
    }

    fn tagged(tag: u64, request: v1::QueryRequest, timeout_ms: u64) -> v1::TaggedQuery {
        v1::TaggedQuery { tag, request: Some(request), timeout_ms }
    }

    fn message(queries: Vec<v1::TaggedQuery>) -> v1::QueryStreamRequest {
        v1::QueryStreamRequest { queries }
    }

    async fn open(
        mut service: ClientClient<Timed>,
        outgoing: Outgoing<Queries>,
    ) -> Result<Response<Streaming<v1::QueryStreamResponse>>, Status> {
        service.query_stream(outgoing).await
    }

    fn answers(message: v1::QueryStreamResponse) -> impl Iterator<Item = (u64, Answer<Queries>)> {
        use v1::tagged_answer::Result as Tagged;
        message.answers.into_iter().map(|answer| {
            let result = match answer.result {
                Some(Tagged::Response(response)) => Ok(response),
                Some(Tagged::Error(error)) => Err(Failure::from_stream(&error)),
                None => Err(without_result()),
            };
            (answer.tag, result)
        })
    }
}

fn without_result() -> Failure {
    Failure::nonsense("neither a response nor an error")
}
