import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { BlockExtent } from './backend.ts';
import type { Inbox } from './inbox.ts';
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEAD_BYTES,
  COMMAND,
  COMMAND_FLAG,
  DEFAULT_MAX_REQUEST_BYTES,
  ERRNO,
  FLAG,
  getUint64,
  LENGTH_MAX,
  MAGIC_CHUNK,
  MAGIC_REQUEST,
  MAGIC_SIMPLE_REPLY,
  putUint64,
  REQUEST_BYTES,
  SIMPLE_REPLY_BYTES,
  STATE,
} from './protocol.ts';
import { ALLOCATION, type Choice, flagsOf } from './reception.ts';
import { BufferPool, Turnstile } from './turnstile.ts';

/** A client in transmission. */
export interface Guest extends Choice {
  readonly inbox: Inbox;
  /** Sends; `sent` is told when the bytes have left or the connection has ended. */
  write(bytes: Uint8Array, sent: () => void): void;
  /** Ends the connection without ado. */
  cut(): void;
  readonly signal: AbortSignal;
  readonly inFlight: number;
  readonly onError: (error: unknown) => void;
}

interface Request {
  readonly command: number;
  readonly flags: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
}

/** Bytes of replies and write data that one client may make us hold, besides one request of the greatest size. */
const IN_FLIGHT_BYTES = 16 * 1024 * 1024;
const EXTENTS_MAX = 16_384;
const ZERO_STEP = Buffer.alloc(256 * 1024);

const ALLOWED_FLAGS: Readonly<Record<number, number>> = {
  [COMMAND.read]: COMMAND_FLAG.fua | COMMAND_FLAG.df,
  [COMMAND.write]: COMMAND_FLAG.fua,
  [COMMAND.flush]: COMMAND_FLAG.fua,
  [COMMAND.trim]: COMMAND_FLAG.fua,
  [COMMAND.writeZeroes]: COMMAND_FLAG.fua | COMMAND_FLAG.noHole,
  [COMMAND.blockStatus]: COMMAND_FLAG.fua | COMMAND_FLAG.reqOne,
};

/** Serves requests until the client disconnects. Throws `protocol` for what no client may send. */
export async function serve(guest: Guest): Promise<void> {
  const turnstile = new Turnstile(guest.inFlight, IN_FLIGHT_BYTES);
  const pool = new BufferPool(guest.inFlight);
  try {
    for (;;) {
      const head = await guest.inbox.take(REQUEST_BYTES);
      if (head.readUInt32BE(0) !== MAGIC_REQUEST) throw breach('a request has a wrong magic number');
      const request = {
        flags: head.readUInt16BE(4),
        command: head.readUInt16BE(6),
        cookie: Buffer.from(head.subarray(8, 16)),
        offset: getUint64(head, 16),
        length: head.readUInt32BE(24),
      };
      if (request.command === COMMAND.disconnect) return;
      const carries = request.command === COMMAND.read || request.command === COMMAND.write ? request.length : 0;
      // Its data would have to be read and thrown away; no honest client goes over what it was told.
      if (request.command === COMMAND.write && carries > DEFAULT_MAX_REQUEST_BYTES) {
        throw breach(`a write of ${carries} bytes`);
      }
      const weight = carries > DEFAULT_MAX_REQUEST_BYTES ? 0 : carries;
      const leave = () => turnstile.leave(weight);
      await turnstile.enter(weight);
      let data: Buffer | undefined;
      try {
        if (request.command === COMMAND.write && carries > 0) data = await guest.inbox.take(carries);
      } catch (cause) {
        leave(); // it hung up in the middle of its data
        throw cause;
      }
      void answer(guest, pool, request, data).then(
        ({ bytes, free }) =>
          guest.write(bytes, () => {
            free?.();
            leave();
          }),
        (cause) => {
          guest.onError(cause);
          guest.write(errorReply(guest, request, cause), leave);
        },
      );
    }
  } catch (cause) {
    guest.cut(); // else a peer that reads nothing could hold us at the unsent answers
    throw cause;
  } finally {
    await turnstile.empty();
  }
}

interface Answer {
  readonly bytes: Uint8Array;
  readonly free?: () => void;
}

async function answer(guest: Guest, pool: BufferPool, request: Request, data?: Buffer): Promise<Answer> {
  const { backend, signal } = guest;
  const { command, offset, length } = request;
  checkRequest(guest, request);
  if (command === COMMAND.read) return read(guest, pool, request);
  if (command === COMMAND.blockStatus) return status(guest, request);
  const flags = flagsOf(backend, guest.structured);
  if (command === COMMAND.write) await backend.write!(offset, data!, signal);
  else if (command === COMMAND.writeZeroes) await zero(guest, request);
  else if (command === COMMAND.trim) await backend.trim?.(offset, length, signal);
  const durable = (request.flags & COMMAND_FLAG.fua) !== 0 && (flags & FLAG.sendFua) !== 0;
  if (command === COMMAND.flush || durable) await backend.flush?.(signal);
  return { bytes: simpleReply(request.cookie, 0) };
}

function checkRequest({ backend, structured, allocation }: Guest, request: Request): void {
  const { command, flags, offset, length } = request;
  const allowed = ALLOWED_FLAGS[command];
  if (allowed === undefined || (flags & ~allowed) !== 0) throw new Refusal(ERRNO.EINVAL, 'unknown command or flag');
  if (command === COMMAND.flush) return;
  const writing = command !== COMMAND.read && command !== COMMAND.blockStatus;
  if (writing && (flagsOf(backend, structured) & FLAG.readOnly) !== 0)
    throw new Refusal(ERRNO.EPERM, 'read-only export');
  if (length === 0) throw new Refusal(ERRNO.EINVAL, 'a request for no bytes');
  if (offset + length > backend.sizeBytes) {
    const growing = command === COMMAND.write || command === COMMAND.writeZeroes;
    throw new Refusal(growing ? ERRNO.ENOSPC : ERRNO.EINVAL, 'beyond the end of the export');
  }
  if (command === COMMAND.read && length > DEFAULT_MAX_REQUEST_BYTES)
    throw new Refusal(ERRNO.EOVERFLOW, 'too long a read');
  if (command === COMMAND.blockStatus && !allocation) throw new Refusal(ERRNO.EINVAL, 'no context was agreed on');
}

async function read({ backend, signal, structured }: Guest, pool: BufferPool, request: Request): Promise<Answer> {
  const { cookie, offset, length } = request;
  const headBytes = structured ? CHUNK_HEAD_BYTES + 8 : SIMPLE_REPLY_BYTES;
  const buffer = pool.take(headBytes + length);
  const bytes = buffer.subarray(0, headBytes + length);
  try {
    await backend.read(offset, bytes.subarray(headBytes), signal);
  } catch (cause) {
    pool.give(buffer);
    throw cause;
  }
  if (structured) {
    putChunkHead(bytes, CHUNK.offsetData, cookie, 8 + length);
    putUint64(bytes, CHUNK_HEAD_BYTES, offset);
  } else simpleReply(cookie, 0).copy(bytes);
  return { bytes, free: () => pool.give(buffer) };
}

async function zero({ backend, signal }: Guest, { offset, length, flags }: Request): Promise<void> {
  if (backend.zero) return backend.zero(offset, length, (flags & COMMAND_FLAG.noHole) === 0, signal);
  for (let done = 0; done < length; done += ZERO_STEP.length) {
    signal.throwIfAborted();
    await backend.write!(offset + done, ZERO_STEP.subarray(0, Math.min(ZERO_STEP.length, length - done)), signal);
  }
}

async function status({ backend, signal }: Guest, { cookie, offset, length, flags }: Request): Promise<Answer> {
  const whole: BlockExtent[] = [{ length, hole: false, zero: false }];
  const extents = backend.blockStatus ? await backend.blockStatus(offset, length, signal) : whole;
  const runs: { length: number; state: number }[] = [];
  let left = length;
  for (const extent of extents) {
    const run = Math.min(extent.length, left, LENGTH_MAX);
    const state = (extent.hole ? STATE.hole : 0) | (extent.zero ? STATE.zero : 0);
    const last = runs.at(-1);
    if (run > 0 && last?.state === state) last.length += run;
    else if (run > 0) {
      if (runs.length >= ((flags & COMMAND_FLAG.reqOne) === 0 ? EXTENTS_MAX : 1)) break;
      runs.push({ length: run, state });
    }
    left -= run;
  }
  if (runs.length === 0) throw new Error('the backend told no state');
  const bytes = Buffer.alloc(CHUNK_HEAD_BYTES + 4 + 8 * runs.length);
  putChunkHead(bytes, CHUNK.blockStatus, cookie, bytes.length - CHUNK_HEAD_BYTES);
  bytes.writeUInt32BE(ALLOCATION.id, CHUNK_HEAD_BYTES);
  for (const [i, run] of runs.entries()) {
    bytes.writeUInt32BE(run.length, CHUNK_HEAD_BYTES + 4 + 8 * i);
    bytes.writeUInt32BE(run.state, CHUNK_HEAD_BYTES + 8 + 8 * i);
  }
  return { bytes };
}

/** A request that is answered with an error although nothing failed. */
class Refusal extends Error {
  readonly errno: number;

  constructor(errno: number, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** True for what {@link Guest.onError} need not report: the client's fault, told to the client. */
export function isRefusal(error: unknown): boolean {
  return error instanceof Refusal;
}

function errorReply(guest: Guest, request: Request, cause: unknown): Buffer {
  const errno = errnoOf(cause);
  // With structured replies a failed read or status must be told in that form.
  const structured = request.command === COMMAND.read || request.command === COMMAND.blockStatus;
  if (!guest.structured || !structured) return simpleReply(request.cookie, errno);
  const text = Buffer.from(cause instanceof Refusal || isHoldfastError(cause) ? cause.message.slice(0, 200) : 'failed');
  const bytes = Buffer.alloc(CHUNK_HEAD_BYTES + 6 + text.length);
  putChunkHead(bytes, CHUNK.error, request.cookie, 6 + text.length);
  bytes.writeUInt32BE(errno, CHUNK_HEAD_BYTES);
  bytes.writeUInt16BE(text.length, CHUNK_HEAD_BYTES + 4);
  text.copy(bytes, CHUNK_HEAD_BYTES + 6);
  return bytes;
}

function errnoOf(cause: unknown): number {
  if (cause instanceof Refusal) return cause.errno;
  if (isHoldfastError(cause, 'target-full')) return ERRNO.ENOSPC;
  if (isHoldfastError(cause, 'forbidden')) return ERRNO.EPERM;
  if (isHoldfastError(cause, 'cancelled')) return ERRNO.ESHUTDOWN;
  return ERRNO.EIO;
}

function simpleReply(cookie: Buffer, errno: number): Buffer {
  const bytes = Buffer.alloc(SIMPLE_REPLY_BYTES);
  bytes.writeUInt32BE(MAGIC_SIMPLE_REPLY, 0);
  bytes.writeUInt32BE(errno, 4);
  cookie.copy(bytes, 8);
  return bytes;
}

function putChunkHead(bytes: Buffer, type: number, cookie: Buffer, length: number): void {
  bytes.writeUInt32BE(MAGIC_CHUNK, 0);
  bytes.writeUInt16BE(CHUNK_FLAG_DONE, 4);
  bytes.writeUInt16BE(type, 6);
  cookie.copy(bytes, 8);
  bytes.writeUInt32BE(length, 16);
}

function breach(what: string): HoldfastError {
  return new HoldfastError('protocol', `An NBD client broke the protocol: ${what}`);
}
