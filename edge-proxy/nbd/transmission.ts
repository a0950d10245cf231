import { type ErrorCode, HoldfastError } from '#contract/errors.ts';
import type { Channel } from './channel.ts';
import { COMMAND, ERRNO, errnoName, putRequest, REQUEST_BYTES } from './protocol.ts';
import { Breach, ReplyParser, type ReplySink } from './replies.ts';

export interface TransmissionOptions {
  /** The server, for messages. */
  readonly where: string;
  readonly structured: boolean;
  readonly inFlight: number;
  readonly requestBytes: number;
  readonly timeoutMs: number;
  /** Told once when nothing more will be done, for whatever reason. */
  readonly onEnd?: () => void;
}

/** What a caller wants done with one range; sent as one or more requests. */
export interface Work {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Where read data go; the data to write. */
  readonly into?: Uint8Array;
  readonly data?: Uint8Array;
  /** Longest single request; default the connection's. */
  readonly pieceBytes?: number;
}

interface Job extends Work {
  readonly pieceBytes: number;
  readonly settle: (error?: HoldfastError) => void;
  readonly onStatus?: (context: number, extents: Buffer) => void;
  issued: number;
  open: number;
  error?: HoldfastError;
}

interface Piece {
  readonly job: Job;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
  readonly tick: number;
  /** Data in order so far reach to here. */
  next: number;
  /** Data that came out of order. */
  strays?: { from: number; to: number }[];
  error?: HoldfastError;
}

const JOBS_MAX = 4096;
const STRAYS_MAX = 4096;
/** A request is late after this many ticks of the watch; the watch ticks this often per time-out. */
const TICKS = 4;
const FLUSH_PATIENCE = 10;

const NAMES = new Map<number, string>(Object.entries(COMMAND).map(([name, number]) => [number, name]));

/** The transmission phase of one connection: requests out, a bounded number at a time; replies in, in any order. */
export class Transmission implements ReplySink {
  readonly #channel: Channel;
  readonly #options: TransmissionOptions;
  readonly #parser = new ReplyParser(this);
  readonly #pieces = new Map<number, Piece>();
  #jobs: Job[] = [];
  #cookie = 0;
  #tick = 0;
  #watch: NodeJS.Timeout;
  #end: HoldfastError | undefined;
  /** The piece whose data arrive now, and where they go in its job's buffer. */
  #filling: Piece | undefined;
  #fillAt = 0;

  constructor(channel: Channel, options: TransmissionOptions) {
    this.#channel = channel;
    this.#options = options;
    // One slow clock for all requests: a timer for each would cost more than the request.
    this.#watch = setInterval(() => this.#lookForLate(), Math.max(1, options.timeoutMs / TICKS));
    this.#watch.unref();
  }

  /** Does the work; rejects with a typed error that names offset and length. */
  run(work: Work, onStatus?: Job['onStatus']): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#end) return reject(this.#endOf(work));
      if (work.length === 0 && work.command !== COMMAND.flush) return resolve();
      if (this.#jobs.length >= JOBS_MAX) {
        return reject(new HoldfastError('limit', `Over ${JOBS_MAX} operations wait for ${this.#options.where}`));
      }
      this.#jobs.push({
        ...work,
        pieceBytes: work.pieceBytes ?? this.#options.requestBytes,
        settle: (error) => (error ? reject(error) : resolve()),
        ...(onStatus ? { onStatus } : {}),
        issued: 0,
        open: 0,
      });
      this.#pump();
    });
  }

  /** One status request; the extents (length and flags, 32 bits each) of one context from `offset` on, at least one. */
  async askStatus(context: number, offset: number, length: number): Promise<Buffer> {
    let answer: Buffer | undefined;
    await this.run({ command: COMMAND.blockStatus, flags: 0, offset, length, pieceBytes: length }, (id, extents) => {
      if (id !== context) return;
      if (answer) throw new Breach('two status chunks for one context');
      answer = Buffer.from(extents);
    });
    let sum = 0;
    for (let i = 0; answer && i < answer.length; i += 8) {
      const length = answer.readUInt32BE(i);
      if (length === 0) answer = undefined;
      sum += length;
    }
    if (!answer || sum === 0) {
      const error = this.#breach('a status reply without extents, or with an empty one', { offset, length });
      this.stop(error);
      throw error;
    }
    return answer;
  }

  /** Takes an arrival from the server. */
  receive(bytes: Buffer): void {
    if (this.#end) return;
    try {
      this.#parser.feed(bytes);
    } catch (cause) {
      if (!(cause instanceof Breach)) throw cause;
      const piece = this.#filling ?? this.#pieces.values().next().value;
      this.stop(this.#breach(cause.message, piece ?? {}));
      return;
    }
    if (!this.#end) this.#pump();
  }

  /** The connection is gone. */
  lost(cause?: Error): void {
    const why = cause ? `: ${cause.message}` : '';
    this.stop(
      new HoldfastError('unreadable', `The connection to ${this.#options.where} was lost${why}`, {
        cause,
        retryable: true,
        remedy: 'Check that the NBD server still runs',
      }),
    );
  }

  /** Ends the connection at once; all that is under way rejects with the error, told for each range. */
  stop(error: HoldfastError): void {
    if (this.#end) return;
    this.#channel.destroy();
    this.#drop(error);
  }

  /** Says goodbye; what is under way rejects with the error. */
  async close(error: HoldfastError): Promise<void> {
    if (this.#end) return this.#channel.end();
    const goodbye = Buffer.alloc(REQUEST_BYTES);
    putRequest(goodbye, 0, { command: COMMAND.disconnect, flags: 0, cookie: this.#nextCookie(), offset: 0, length: 0 });
    this.#channel.write(goodbye);
    const ended = this.#channel.end();
    this.#drop(error);
    await ended;
  }

  simple(cookie: number, errno: number): number {
    const piece = this.#find(cookie);
    if (errno !== 0) {
      piece.error ??= this.#failure(piece, errno, '');
      return 0;
    }
    const command = piece.job.command;
    if (command === COMMAND.blockStatus) throw new Breach('a simple reply to a status request');
    if (command !== COMMAND.read) return 0;
    if (this.#options.structured) throw new Breach('a simple reply with data although structured ones were agreed');
    this.data(cookie, piece.offset, piece.length);
    return piece.length;
  }

  data(cookie: number, offset: number, length: number): void {
    const piece = this.#cover(cookie, offset, length);
    this.#filling = piece;
    this.#fillAt = offset - piece.job.offset;
  }

  piece(bytes: Buffer, from: number, to: number, at: number): void {
    bytes.copy(this.#filling!.job.into!, this.#fillAt + at, from, to);
  }

  hole(cookie: number, offset: number, length: number): void {
    const { job } = this.#cover(cookie, offset, length);
    const at = offset - job.offset;
    job.into!.fill(0, at, at + length);
  }

  status(cookie: number, context: number, extents: Buffer): void {
    const { job } = this.#find(cookie);
    if (!job.onStatus) throw new Breach('a status that nobody asked for');
    job.onStatus(context, extents);
  }

  error(cookie: number, errno: number, text: string): void {
    const piece = this.#find(cookie);
    if (errno === 0) throw new Breach('an error chunk without an error');
    piece.error ??= this.#failure(piece, errno, text);
  }

  done(cookie: number): void {
    const piece = this.#find(cookie);
    this.#filling = undefined;
    if (!piece.error && piece.job.command === COMMAND.read && !isCovered(piece)) {
      throw new Breach(
        `a reply to a read of ${piece.length} bytes at ${piece.offset} that does not fill it exactly once`,
      );
    }
    this.#pieces.delete(cookie);
    const job = piece.job;
    job.open--;
    if (piece.error && !job.error) {
      job.error = piece.error;
      job.issued = job.length; // the rest would be in vain
      this.#jobs = this.#jobs.filter((other) => other !== job);
    }
    if (job.open === 0 && job.issued >= job.length) job.settle(job.error);
  }

  #drop(error: HoldfastError): void {
    this.#end = error;
    clearInterval(this.#watch);
    this.#options.onEnd?.();
    const jobs = new Set([...[...this.#pieces.values()].map((piece) => piece.job), ...this.#jobs]);
    this.#pieces.clear();
    this.#jobs = [];
    for (const job of jobs) job.settle(this.#endOf(job));
  }

  #cover(cookie: number, offset: number, length: number): Piece {
    const piece = this.#find(cookie);
    if (piece.job.command !== COMMAND.read) throw new Breach('data that nobody asked for');
    if (length === 0 || offset < piece.offset || offset + length > piece.offset + piece.length) {
      throw new Breach(`data for ${offset}+${length} in the reply to ${piece.offset}+${piece.length}`);
    }
    if (offset === piece.next) piece.next += length;
    else {
      piece.strays ??= [];
      if (piece.strays.length >= STRAYS_MAX) throw new Breach('a reply in too many pieces');
      piece.strays.push({ from: offset, to: offset + length });
    }
    return piece;
  }

  #find(cookie: number): Piece {
    const piece = this.#pieces.get(cookie);
    if (!piece) throw new Breach('a reply to a request that was not made');
    return piece;
  }

  #pump(): void {
    const room = this.#options.inFlight - this.#pieces.size;
    if (room <= 0 || this.#jobs.length === 0) return;
    this.#channel.batch(() => {
      const heads = Buffer.allocUnsafe(REQUEST_BYTES * room);
      let from = 0;
      let at = 0;
      while (this.#jobs.length > 0 && at < heads.length) {
        const piece = this.#issue(heads, at);
        at += REQUEST_BYTES;
        const { job } = piece;
        if (!job.data) continue;
        this.#channel.write(heads.subarray(from, at));
        const start = piece.offset - job.offset;
        this.#channel.write(job.data.subarray(start, start + piece.length));
        from = at;
      }
      if (at > from) this.#channel.write(heads.subarray(from, at));
    });
  }

  #issue(heads: Buffer, at: number): Piece {
    const job = this.#jobs[0]!;
    const offset = job.offset + job.issued;
    const length = Math.min(job.pieceBytes, job.length - job.issued);
    const piece: Piece = { job, cookie: this.#nextCookie(), offset, length, tick: this.#tick, next: offset };
    putRequest(heads, at, { command: job.command, flags: job.flags, cookie: piece.cookie, offset, length });
    job.issued += length;
    job.open++;
    if (job.issued >= job.length) this.#jobs.shift();
    this.#pieces.set(piece.cookie, piece);
    return piece;
  }

  #nextCookie(): number {
    do this.#cookie = (this.#cookie + 1) >>> 0;
    while (this.#pieces.has(this.#cookie));
    return this.#cookie;
  }

  #lookForLate(): void {
    this.#tick++;
    for (const piece of this.#pieces.values()) {
      const patience = piece.job.command === COMMAND.flush ? TICKS * FLUSH_PATIENCE : TICKS;
      if (this.#tick - piece.tick <= patience) continue;
      const { where, timeoutMs } = this.#options;
      const what = `${NAMES.get(piece.job.command)} of ${piece.length} bytes at ${piece.offset}`;
      this.stop(
        new HoldfastError('timeout', `${where} did not answer a ${what} within ${(timeoutMs * patience) / TICKS} ms`, {
          retryable: true,
          remedy: 'Check that the server and its storage are not hanging',
          data: { offset: piece.offset, length: piece.length },
        }),
      );
      return;
    }
  }

  /** The error that ended the connection, as it bears on one range. */
  #endOf(work: Work): HoldfastError {
    const end = this.#end!;
    const reading = work.command === COMMAND.read || work.command === COMMAND.blockStatus;
    const code: ErrorCode = end.code === 'unreadable' && !reading ? 'target-failed' : end.code;
    return new HoldfastError(
      code,
      `${end.message} (${NAMES.get(work.command)} of ${work.length} bytes at ${work.offset})`,
      {
        cause: end.cause ?? end,
        retryable: end.retryable,
        ...(end.remedy === undefined ? {} : { remedy: end.remedy }),
        data: { offset: work.offset, length: work.length },
      },
    );
  }

  #failure(piece: Piece, errno: number, text: string): HoldfastError {
    const { job, offset, length } = piece;
    const reading = job.command === COMMAND.read || job.command === COMMAND.blockStatus;
    const code = reading ? 'unreadable' : (FAILURES[errno] ?? 'target-failed');
    const said = text ? ` (${JSON.stringify(text)})` : '';
    const what = `${NAMES.get(job.command)} of ${length} bytes at ${offset}`;
    return new HoldfastError(code, `${this.#options.where} failed a ${what}: ${errnoName(errno)}${said}`, {
      remedy: reading
        ? 'Check the health of the storage behind the server'
        : (REMEDIES[code] ?? "Look into the server's log"),
      retryable: errno === ERRNO.ESHUTDOWN,
      data: { offset, length, errno },
    });
  }

  #breach(what: string, range: { readonly offset?: number; readonly length?: number }): HoldfastError {
    const { offset, length } = range;
    return new HoldfastError('protocol', `${this.#options.where} broke the NBD protocol: ${what}`, {
      remedy: 'Check that the server is a current one; report the fault to its makers',
      data: offset === undefined ? {} : { offset, length },
    });
  }
}

const FAILURES: Readonly<Record<number, ErrorCode>> = { [ERRNO.ENOSPC]: 'target-full', [ERRNO.EPERM]: 'forbidden' };
const REMEDIES: Readonly<Partial<Record<ErrorCode, string>>> = {
  'target-full': 'Free space on the storage behind the server',
  forbidden: 'Let the server export it for writing',
};

/** True if the data and holes of a read's reply cover it without gap or overlap. */
function isCovered(piece: Piece): boolean {
  let at = piece.next;
  for (const { from, to } of (piece.strays ?? []).sort((a, b) => a.from - b.from)) {
    if (from !== at) return false;
    at = to;
  }
  return at === piece.offset + piece.length;
}
