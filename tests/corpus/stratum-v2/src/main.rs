//! A pool and a miner that speak Stratum V2 with each other by its reference
//! implementation: its handshake, frames and messages are what is captured. Work and
//! shares are made up: nothing is mined.
//!
//! ```text
//! stratum-v2 pool ADDRESS
//! stratum-v2 mine ADDRESS SHARES
//! ```

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use secp256k1::SecretKey;
use stratum_apps::key_utils::Secp256k1SecretKey;
use stratum_apps::network_helpers::noise_stream::{
    NoiseTcpReadHalf, NoiseTcpStream, NoiseTcpWriteHalf,
};
use stratum_apps::network_helpers::{accept_noise_connection, connect_with_noise};
use stratum_apps::stratum_core::binary_sv2::Sv2Option;
use stratum_apps::stratum_core::codec_sv2::{MessageFrame, SerializedFrame};
use stratum_apps::stratum_core::common_messages_sv2::{
    Protocol, SetupConnection, SetupConnectionSuccess,
};
use stratum_apps::stratum_core::mining_sv2::{
    NewMiningJob, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, SetNewPrevHash,
    SubmitSharesStandard, SubmitSharesSuccess,
};
use stratum_apps::stratum_core::parsers_sv2::{AnyMessage, CommonMessages, Mining};
use tokio::net::{TcpListener, TcpStream};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Seconds for which the pool's certificate is good.
const CERTIFICATE: u64 = 3600;
const VERSION: u16 = 2;
const CHANNEL: u32 = 1;
/// A block's version and time, and a target that every hash meets.
const BLOCK_VERSION: u32 = 0x2000_0000;
const TIME: u32 = 1_700_000_000;
const EVERY_HASH: [u8; 32] = [0xff; 32];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["pool", address] => pool(address).await,
        ["mine", address, shares] => mine(address, shares.parse()?).await,
        _ => Err("usage: stratum-v2 pool ADDRESS | mine ADDRESS SHARES".into()),
    }
}

async fn pool(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        if let Err(error) = serve(stream).await {
            eprintln!("a miner is gone: {error}");
        }
    }
}

async fn serve(stream: TcpStream) -> Result<()> {
    let key = Secp256k1SecretKey(SecretKey::from_slice(&[7; 32])?);
    let stream = accept_noise_connection(stream, key.into(), key, CERTIFICATE);
    let mut miner = Peer::new(stream.await.map_err(told)?);
    loop {
        let mut frame = miner.reader.read_frame().await.map_err(told)?;
        match message(&mut frame)? {
            AnyMessage::Common(CommonMessages::SetupConnection(_)) => {
                let success = SetupConnectionSuccess {
                    used_version: VERSION,
                    flags: 0,
                };
                let success = CommonMessages::SetupConnectionSuccess(success);
                miner.send(AnyMessage::Common(success)).await?;
            }
            AnyMessage::Mining(Mining::OpenStandardMiningChannel(open)) => {
                let success = OpenStandardMiningChannelSuccess {
                    request_id: open.request_id,
                    channel_id: CHANNEL,
                    target: (&EVERY_HASH).into(),
                    extranonce_prefix: (&[1, 2, 3, 4][..]).try_into().map_err(|_| "prefix")?,
                    group_channel_id: 0,
                };
                miner
                    .mining(Mining::OpenStandardMiningChannelSuccess(success))
                    .await?;
                miner.work(1).await?;
            }
            AnyMessage::Mining(Mining::SubmitSharesStandard(share)) => {
                let success = SubmitSharesSuccess {
                    channel_id: CHANNEL,
                    last_sequence_number: share.sequence_number,
                    new_submits_accepted_count: 1,
                    new_shares_sum: 1,
                };
                miner.mining(Mining::SubmitSharesSuccess(success)).await?;
                miner.work(share.job_id + 1).await?;
            }
            other => return Err(format!("unexpected: {other}").into()),
        }
    }
}

async fn mine(address: &str, shares: u32) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut pool = Peer::new(connect_with_noise(stream, None).await.map_err(told)?);
    let (host, port) = address.split_once(':').ok_or("an address with a port")?;
    let setup = SetupConnection {
        protocol: Protocol::MiningProtocol,
        min_version: VERSION,
        max_version: VERSION,
        flags: 1,
        endpoint_host: host.try_into().map_err(|_| "host")?,
        endpoint_port: port.parse()?,
        vendor: "corpus".try_into().map_err(|_| "vendor")?,
        hardware_version: "1".try_into().map_err(|_| "hardware")?,
        firmware: "1".try_into().map_err(|_| "firmware")?,
        device_id: "rig-1".try_into().map_err(|_| "device")?,
    };
    pool.send(AnyMessage::Common(CommonMessages::SetupConnection(setup)))
        .await?;
    let mut accepted = 0;
    let mut job = None;
    while accepted < shares {
        let mut frame = pool.reader.read_frame().await.map_err(told)?;
        match message(&mut frame)? {
            AnyMessage::Common(CommonMessages::SetupConnectionSuccess(_)) => {
                let open = OpenStandardMiningChannel {
                    request_id: 1,
                    user_identity: "rig-1".try_into().map_err(|_| "identity")?,
                    nominal_hash_rate: 1000.0,
                    max_target: (&EVERY_HASH).into(),
                };
                pool.mining(Mining::OpenStandardMiningChannel(open)).await?;
            }
            AnyMessage::Mining(Mining::NewMiningJob(new)) => job = Some(new.job_id),
            AnyMessage::Mining(Mining::SetNewPrevHash(_)) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let share = SubmitSharesStandard {
                    channel_id: CHANNEL,
                    sequence_number: accepted + 1,
                    job_id: job.ok_or("a block before any job")?,
                    nonce: accepted,
                    ntime: TIME,
                    version: BLOCK_VERSION,
                };
                pool.mining(Mining::SubmitSharesStandard(share)).await?;
            }
            AnyMessage::Mining(Mining::SubmitSharesSuccess(_)) => accepted += 1,
            AnyMessage::Mining(Mining::OpenStandardMiningChannelSuccess(_)) => {}
            other => return Err(format!("unexpected: {other}").into()),
        }
    }
    println!("{accepted} shares accepted");
    Ok(())
}

/// The other end.
struct Peer {
    reader: NoiseTcpReadHalf,
    writer: NoiseTcpWriteHalf,
}

impl Peer {
    fn new(stream: NoiseTcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer }
    }

    async fn send(&mut self, message: AnyMessage<'_>) -> Result<()> {
        let frame: MessageFrame<AnyMessage<'_>> =
            message.try_into().map_err(|_| "a message too long")?;
        self.writer.write_frame(frame).await.map_err(told)
    }

    async fn mining(&mut self, message: Mining<'_>) -> Result<()> {
        self.send(AnyMessage::Mining(message)).await
    }

    /// A job, and the block that it follows.
    async fn work(&mut self, job_id: u32) -> Result<()> {
        let hash = [u8::try_from(job_id)?; 32];
        self.mining(Mining::NewMiningJob(NewMiningJob {
            channel_id: CHANNEL,
            job_id,
            min_ntime: Sv2Option::new(None),
            version: BLOCK_VERSION,
            merkle_root: (&hash).into(),
        }))
        .await?;
        self.mining(Mining::SetNewPrevHash(SetNewPrevHash {
            channel_id: CHANNEL,
            job_id,
            prev_hash: (&hash).into(),
            min_ntime: TIME,
            nbits: 0x207f_ffff,
        }))
        .await
    }
}

fn told(error: impl Display) -> Box<dyn Error> {
    error.to_string().into()
}

fn message(frame: &mut SerializedFrame) -> Result<AnyMessage<'_>> {
    let header = frame.header();
    AnyMessage::try_from((header, frame.payload())).map_err(|error| format!("{error:?}").into())
}
