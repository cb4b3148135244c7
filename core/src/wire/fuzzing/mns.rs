//! The MNS wire, from both sides.

use std::fmt::Debug;

use crate::wire::mns::{
    Malformed, Named, Operation, QueueMeta, Refusal, Sent, SubscriptionMeta, TopicMeta, Visibility,
    decode_batch, decode_each_received, decode_failures, decode_list, decode_received, decode_received_batch,
    encode_batch, encode_failures, encode_list, encode_received, encode_received_batch,
};

/// A request, `METHOD TARGET` in its first line and the body behind it: what is read is written and read again as the
/// same, and what is refused has a code.
pub(crate) fn mns_request(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (line, body) = input.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return };
    let (method, target) = line.split_once(' ').unwrap_or((line, ""));
    // The rest of the line is in every header.
    let header = |name: &str| (name != "x-mns-ret-number").then_some(target);
    match Operation::decode(method, target, header, body) {
        Ok(operation) => {
            let request = operation.encode();
            let header = |name: &str| {
                let found = request.headers.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.as_str())
            };
            let again = Operation::decode(request.method, &request.resource, header, request.body.as_bytes());
            assert_eq!(again.expect("what was written is read"), operation);
        }
        Err(refused) => assert!((400..500).contains(&refused.code.status()) && !refused.text.is_empty()),
    }
}

/// An answer: each reader that takes it takes what is written of it as the same.
pub(crate) fn mns_answer(input: &[u8]) {
    same(Sent::decode(input), |sent| Sent::decode(sent.encode().as_bytes()));
    same(decode_batch(input), |all| decode_batch(encode_batch(all).as_bytes()));
    if let Ok(one) = decode_received(input) {
        assert_eq!(decode_received(encode_received(&one).as_bytes()).expect("it was written"), one);
    }
    let each = decode_each_received(input);
    if let Ok(all) = decode_received_batch(input) {
        let each: Option<Vec<_>> = each.ok().and_then(|each| each.into_iter().collect::<Result<_, _>>().ok());
        assert_eq!(each.as_ref(), Some(&all), "what can be read is read alike");
        assert_eq!(
            decode_received_batch(encode_received_batch(&all).as_bytes()).expect("it was written"),
            all
        );
    }
    same(Visibility::decode(input), |one| Visibility::decode(one.encode().as_bytes()));
    same(Refusal::decode(input), |one| Refusal::decode(one.encode().as_bytes()));
    same(decode_failures(input), |all| decode_failures(encode_failures(all).as_bytes()));
    told::<QueueMeta>(input);
    told::<TopicMeta>(input);
    told::<SubscriptionMeta>(input);
}

fn same<T: Debug + PartialEq>(read: Result<T, Malformed>, again: impl Fn(&T) -> Result<T, Malformed>) {
    if let Ok(value) = read {
        assert_eq!(again(&value).expect("what was written is read"), value);
    }
}

fn told<M: Named + Debug + PartialEq>(input: &[u8]) {
    same(M::decode(input), |one| M::decode(one.encode().as_bytes()));
    for with_meta in [false, true] {
        same(decode_list::<M>(input, with_meta), |(listed, next)| {
            decode_list(encode_list(listed, next.as_deref()).as_bytes(), with_meta)
        });
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    // Pieces of documents, put together at random: most of them are none, and some are read.
    #[test]
    fn pieces_put_together() {
        const PIECES: [&str; 20] = [
            "<Message>",
            "</Message>",
            "<MessageBody>&#x9;&amp;<![CDATA[<x>]]>\u{fffd}</MessageBody>",
            "<MessageBody/>",
            "<MessageId>a</MessageId>",
            "<MessageBodyMD5>b</MessageBodyMD5>",
            "<Message><ErrorCode>c</ErrorCode></Message>",
            "<Message><MessageBody> m </MessageBody></Message>",
            "<Message><MessageId>a</MessageId><MessageBodyMD5/></Message>",
            "<ReceiptHandle>d</ReceiptHandle>",
            "<Error><ErrorCode>c</ErrorCode><ReceiptHandle>&lt;</ReceiptHandle></Error>",
            "<Code>e</Code>",
            " text ",
            "<Priority>3</Priority>",
            "<QueueName>q</QueueName>",
            "<Queue>",
            "</Queue>",
            "<NextMarker>m</NextMarker>",
            "<UserProperties><PropertyValue><Name>n</Name><Value/></PropertyValue></UserProperties>",
            "<MessageAttributes><DirectMail>{}</DirectMail><Other/></MessageAttributes>",
        ];
        let mut random = SmallRng::seed_from_u64(1);
        let mut read = 0;
        for _ in 0..20_000 {
            let number = random.random_range(1..9);
            let inner: String = (0..number).map(|_| *PIECES.choose(&mut random).unwrap()).collect();
            let root = *["Message", "Messages", "Error", "Errors", "Queue", "Queues", "ReceiptHandles"]
                .choose(&mut random)
                .unwrap();
            let document = format!("<{root}>{inner}</{root}>");
            read += usize::from(decode_batch(document.as_bytes()).is_ok_and(|all| !all.is_empty()));
            read += usize::from(Sent::decode(document.as_bytes()).is_ok());
            mns_answer(document.as_bytes());
            for head in ["POST /queues/q/messages", "DELETE /queues/q/messages", "PUT /queues/q"] {
                mns_request(format!("{head}\n{document}").as_bytes());
            }
        }
        assert!(read > 100, "{read}");
    }
}
