import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEAD_BYTES,
  getUint64,
  isChunkError,
  MAGIC_CHUNK,
  MAGIC_SIMPLE_REPLY,
  SIMPLE_REPLY_BYTES,
} from './protocol.ts';

/** Payloads other than data: statuses (8 bytes an extent) and error texts. */
const PAYLOAD_MAX_BYTES = 16 * 1024 * 1024 + 4;
const DATA_HEAD_BYTES = 8;

/** What a {@link ReplyParser} reports. Each may throw a {@link Breach}. */
export interface ReplySink {
  /** A simple reply; returns how many bytes of data follow it. */
  simple(cookie: number, errno: number): number;
  /** `length` bytes of data for disk offset `offset` follow. */
  data(cookie: number, offset: number, length: number): void;
  /** Some of the announced data: `bytes[from..to)`; `at` counts from the start of the announced data. */
  piece(bytes: Buffer, from: number, to: number, at: number): void;
  hole(cookie: number, offset: number, length: number): void;
  status(cookie: number, context: number, extents: Buffer): void;
  error(cookie: number, errno: number, text: string): void;
  /** The reply is over: its simple form with its data, or its last chunk. */
  done(cookie: number): void;
}

/** Thrown for bytes that the protocol forbids. */
export class Breach extends Error {}

/**
 * Cuts a server's byte stream into replies, however it is torn. Data goes straight on to the sink;
 * only heads and small payloads are gathered here.
 */
export class ReplyParser {
  readonly #sink: ReplySink;
  #box: Buffer = Buffer.alloc(4096);
  #have = 0;
  #want = SIMPLE_REPLY_BYTES;
  #stage: 'head' | 'chunk-head' | 'data-head' | 'data' | 'payload' = 'head';
  #cookie = 0;
  #done = false;
  #type = 0;
  #length = 0; // of the chunk's payload
  #at = 0; // bytes of data passed on

  constructor(sink: ReplySink) {
    this.#sink = sink;
  }

  /** Takes the next arrival; keeps none of it. */
  feed(bytes: Buffer): void {
    let from = 0;
    while (from < bytes.length) {
      const n = Math.min(this.#want - this.#have, bytes.length - from);
      if (this.#stage === 'data') {
        this.#sink.piece(bytes, from, from + n, this.#at);
        this.#at += n;
      } else bytes.copy(this.#box, this.#have, from, from + n);
      from += n;
      this.#have += n;
      if (this.#have === this.#want) this.#advance();
    }
  }

  #advance(): void {
    switch (this.#stage) {
      case 'head':
        this.#startReply();
        break;
      case 'chunk-head':
        this.#startChunk();
        break;
      case 'data-head': {
        const length = this.#length - DATA_HEAD_BYTES;
        this.#sink.data(this.#cookie, getUint64(this.#box, CHUNK_HEAD_BYTES), length);
        this.#await('data', length);
        break;
      }
      case 'data':
        this.#endChunk();
        break;
      case 'payload':
        this.#readPayload(this.#box.subarray(0, this.#length));
        this.#endChunk();
        break;
    }
  }

  #startReply(): void {
    const magic = this.#box.readUInt32BE(0);
    if (magic === MAGIC_CHUNK) {
      this.#stage = 'chunk-head';
      this.#want = CHUNK_HEAD_BYTES;
      return;
    }
    if (magic !== MAGIC_SIMPLE_REPLY) throw new Breach(`a reply has the wrong magic number 0x${magic.toString(16)}`);
    this.#done = true;
    this.#cookie = getUint64(this.#box, 8);
    const data = this.#sink.simple(this.#cookie, this.#box.readUInt32BE(4));
    if (data > 0) this.#await('data', data);
    else this.#endChunk();
  }

  #startChunk(): void {
    this.#done = (this.#box.readUInt16BE(4) & CHUNK_FLAG_DONE) !== 0;
    this.#type = this.#box.readUInt16BE(6);
    this.#cookie = getUint64(this.#box, 8);
    this.#length = this.#box.readUInt32BE(16);
    if (this.#type === CHUNK.offsetData) {
      if (this.#length <= DATA_HEAD_BYTES) throw new Breach('a data chunk without data');
      this.#stage = 'data-head';
      this.#want = CHUNK_HEAD_BYTES + DATA_HEAD_BYTES;
    } else if (this.#length === 0) {
      this.#readPayload(this.#box.subarray(0, 0));
      this.#endChunk();
    } else {
      if (this.#length > PAYLOAD_MAX_BYTES) throw new Breach(`a chunk of ${this.#length} bytes`);
      if (this.#length > this.#box.length) this.#box = Buffer.alloc(this.#length);
      this.#await('payload', this.#length);
    }
  }

  #readPayload(body: Buffer): void {
    if (this.#type === CHUNK.none) {
      if (body.length !== 0 || !this.#done) throw new Breach('an empty chunk that is not the last one');
    } else if (this.#type === CHUNK.offsetHole) {
      if (body.length !== 12) throw new Breach(`a hole chunk of ${body.length} bytes`);
      this.#sink.hole(this.#cookie, getUint64(body, 0), body.readUInt32BE(8));
    } else if (this.#type === CHUNK.blockStatus) {
      if (body.length < 12 || body.length % 8 !== 4) throw new Breach(`a status chunk of ${body.length} bytes`);
      this.#sink.status(this.#cookie, body.readUInt32BE(0), body.subarray(4));
    } else if (isChunkError(this.#type)) {
      if (body.length < 6 || 6 + body.readUInt16BE(4) > body.length) throw new Breach('an error chunk is cut off');
      const text = body.toString('utf8', 6, 6 + body.readUInt16BE(4));
      this.#sink.error(this.#cookie, body.readUInt32BE(0), text.slice(0, 200));
    } else throw new Breach(`an unknown chunk type ${this.#type}`);
  }

  #await(stage: 'data' | 'payload' | 'head', count: number): void {
    this.#stage = stage;
    this.#at = 0;
    this.#have = 0;
    this.#want = count;
  }

  #endChunk(): void {
    if (this.#done) this.#sink.done(this.#cookie);
    this.#await('head', SIMPLE_REPLY_BYTES);
  }
}
