import { z } from 'zod';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { type Id, idSchema, makeId } from '#contract/ids.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { STATE_KEY } from './names.ts';
import { sha256 } from './sha256.ts';
import type { Commit, Generation, Session, VaultState } from './state.ts';

const LEASE_MS = 10 * 60_000;
const SWAP_ATTEMPTS = 50;
/** Swaps whose outcome stayed unknown, after the store's own retries, before that is reported. */
const UNKNOWN_MAX = 3;

const segmentRef = z.object({ key: z.string(), sizeBytes: z.number().int().positive() });
const stateObject = z.object({
  epoch: z.number().int().nonnegative(),
  minCommitEpoch: z.number().int().nonnegative(),
  nextToken: z.number().int().positive(),
  generation: z.object({ number: z.number().int().nonnegative(), segments: z.array(segmentRef) }),
  sessions: z.array(
    z.object({
      id: idSchema('session'),
      machine: idSchema('machine'),
      token: z.number().int(),
      startEpoch: z.number().int(),
      holder: z.string(),
      leaseUntilMs: z.number(),
    }),
  ),
  /** Points that are committed, but whose objects may not be written yet: whoever sees one writes it. */
  pending: z.array(z.object({ key: z.string(), content: z.base64() })),
});
/** With the SHA-256 of the state as {@link sumOf} makes it, so that no flipped digit is taken for the truth. */
const summedState = stateObject.extend({ sha256: z.string().optional() });
type State = z.infer<typeof stateObject>;

const EMPTY: State = {
  epoch: 0,
  minCommitEpoch: 0,
  nextToken: 1,
  generation: { number: 0, segments: [] },
  sessions: [],
  pending: [],
};

export interface BlobStateDependencies {
  readonly blobs: Blobs;
  readonly clock: Clock;
  readonly random: Random;
  /** False if the holder of a session is known to be gone, so that its lease need not run out. */
  readonly mayBeAlive: (holder: string) => boolean;
}

/**
 * The state of a vault used without a control plane: one object, changed by compare-and-swap, so that
 * several machines' backups may run on one folder or bucket at once.
 *
 * The swap that ends a session also records the point's bytes as pending; that swap is the commit.
 * Writing the point's object follows, by the committer or, if it dies, by whoever comes next.
 */
export class BlobVaultState implements VaultState {
  readonly #deps: BlobStateDependencies;

  constructor(deps: BlobStateDependencies) {
    this.#deps = deps;
  }

  async generation(): Promise<Generation> {
    const { state } = await this.#load().catch(async (error: unknown) => {
      // Whatever the state would have said: all that was ever stored is in the index that is there.
      if (isHoldfastError(error, 'damaged')) return { state: await this.#rebuilt() };
      throw error;
    });
    // A vault on a read-only medium is readable all the same; its pending points wait.
    await this.#writePending(state).catch(() => undefined);
    return state.generation;
  }

  async openSession(machine: Id<'machine'>, holder: string): Promise<Session> {
    const id = makeId('session', this.#deps.clock.nowMs(), this.#deps.random.bytes(10));
    // The session's parent is looked for among the points' objects: all that are committed must be there.
    await this.#writePending((await this.#load()).state);
    return await this.#change((state) => {
      const now = this.#deps.clock.nowMs();
      const own = state.sessions.find((session) => session.id === id);
      // An earlier try took effect and its answer was lost.
      if (own) return { next: state, result: sessionOf(own, state) };
      const other = state.sessions.find((session) => session.machine === machine);
      if (other && other.leaseUntilMs > now && this.#deps.mayBeAlive(other.holder)) {
        throw new HoldfastError('busy', `The machine is being backed up already, by ${other.holder}`, {
          remedy: `Wait for it to end; if it is dead, its lease ends at ${new Date(other.leaseUntilMs).toISOString()}`,
        });
      }
      const token = state.nextToken;
      const session = { id, machine, token, startEpoch: state.epoch, holder, leaseUntilMs: now + LEASE_MS };
      return {
        next: { ...state, nextToken: token + 1, sessions: [...state.sessions.filter((s) => s !== other), session] },
        result: sessionOf(session, state),
      };
    });
  }

  renew(session: Session): Promise<void> {
    return this.#change((state) => {
      this.#find(state, session);
      const leaseUntilMs = this.#deps.clock.nowMs() + LEASE_MS;
      return {
        next: { ...state, sessions: state.sessions.map((s) => (s.id === session.id ? { ...s, leaseUntilMs } : s)) },
        result: undefined,
      };
    });
  }

  async commit(session: Session, commit: Commit): Promise<void> {
    const content = Buffer.from(commit.point);
    await this.#change((state) => {
      if (!state.sessions.some((s) => s.id === session.id) && state.pending.some((p) => p.key === commit.pointKey))
        return { next: state, result: undefined };
      const found = this.#find(state, session);
      if (found.startEpoch < state.minCommitEpoch) throw fenced();
      return {
        next: {
          ...state,
          generation: {
            number: state.generation.number + 1,
            segments: [...state.generation.segments, ...commit.segments],
          },
          sessions: state.sessions.filter((s) => s.id !== session.id),
          pending: [...state.pending, { key: commit.pointKey, content: content.toString('base64') }],
        },
        result: undefined,
      };
    }).catch(async (error: unknown) => {
      // The answer to an earlier try may have been lost: the point then exists with these very bytes.
      const written = await this.#deps.blobs.get(commit.pointKey);
      if (written === undefined || !content.equals(written.content)) throw error;
    });
    // The swap was the commit. If the object cannot be written now, whoever comes next writes it.
    await this.#load()
      .then(({ state }) => this.#writePending(state))
      .catch(() => undefined);
  }

  abandon(session: Session): Promise<void> {
    return this.#change((state) => ({
      next: { ...state, sessions: state.sessions.filter((s) => s.id !== session.id) },
      result: undefined,
    }));
  }

  #find(state: State, session: Session): State['sessions'][number] {
    const found = state.sessions.find((s) => s.id === session.id && s.token === session.token);
    if (found === undefined) throw fenced();
    return found;
  }

  async #writePending(state: State): Promise<void> {
    if (state.pending.length === 0) return;
    for (const { key, content } of state.pending)
      await this.#deps.blobs.putIfAbsent(key, [Buffer.from(content, 'base64')]);
    const written = new Set(state.pending.map((p) => p.key));
    await this.#change((now) => ({
      next: { ...now, pending: now.pending.filter((p) => !written.has(p.key)) },
      result: undefined,
    }));
  }

  async #load(): Promise<{ readonly state: State; readonly version: string | null }> {
    const found = await this.#deps.blobs.get(STATE_KEY);
    if (found === undefined) return { state: await this.#rebuilt(), version: null };
    try {
      return { state: decodeState(found.content), version: found.version };
    } catch (cause) {
      throw unreadable(cause);
    }
  }

  /**
   * The state of a vault that has none (a new one, one whose state was lost, or the bucket of a control plane, which
   * keeps its own): every index segment that is there is live. One that no point needs does no harm.
   */
  async #rebuilt(): Promise<State> {
    const segments: State['generation']['segments'] = [];
    let number = 0;
    let cursor: string | undefined;
    do {
      const page = await this.#deps.blobs.list('index/', cursor);
      for (const { key, sizeBytes } of page.blobs) {
        segments.push({ key, sizeBytes });
        number = Math.max(number, Number.parseInt(key.split('/')[1] ?? '', 10) || 0);
      }
      cursor = page.next;
    } while (cursor !== undefined);
    return { ...EMPTY, generation: { number, segments } };
  }

  async #change<T>(step: (state: State) => { readonly next: State; readonly result: T }): Promise<T> {
    let unknown = 0;
    for (let attempt = 0; attempt < SWAP_ATTEMPTS; attempt++) {
      const { state, version } = await this.#load();
      const { next, result } = step(state);
      if (next === state) return result;
      try {
        if ((await this.#deps.blobs.replaceIf(STATE_KEY, encodeState(next), version)) !== undefined) return result;
      } catch (error) {
        // The swap may have taken effect all the same: the step is asked again, and finds what it did before.
        if (!(error instanceof HoldfastError) || !error.retryable || ++unknown === UNKNOWN_MAX) throw error;
      }
      await this.#deps.clock.sleep(5 + this.#deps.random.fraction() * 20 * attempt);
    }
    throw new HoldfastError('busy', 'The vault’s state kept changing under us', {
      tried: `${SWAP_ATTEMPTS} attempts`,
      retryable: true,
      remedy: 'Try again',
    });
  }
}

function sessionOf(session: State['sessions'][number], { generation }: State): Session {
  const { id, machine, token, startEpoch } = session;
  return { id, machine, token, startEpoch, generation };
}

function encodeState(state: State): Buffer {
  return Buffer.from(JSON.stringify({ ...state, sha256: sumOf(state) }));
}

function decodeState(bytes: Uint8Array): State {
  const { sha256, ...state } = summedState.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  if (sha256 !== undefined && sha256 !== sumOf(state)) throw new Error('its sum does not match');
  return state;
}

function sumOf(state: State): string {
  return sha256(Buffer.from(JSON.stringify(stateObject.parse(state)))).toString('hex');
}

/** Throws `damaged` unless the bytes are a state that {@link BlobVaultState} wrote. */
export function checkStateObject(bytes: Uint8Array): void {
  try {
    decodeState(bytes);
  } catch (cause) {
    throw unreadable(cause);
  }
}

function unreadable(cause: unknown): HoldfastError {
  return new HoldfastError('damaged', `The vault's object ${STATE_KEY} is not readable`, {
    cause,
    data: { key: STATE_KEY },
    remedy: 'Points can be restored. To back up again, remove this object: it is made anew from the index',
  });
}

function fenced(): HoldfastError {
  return new HoldfastError(
    'fenced',
    'The session was ended by the vault’s maintenance or by a later session on the same machine',
    {
      retryable: true,
      remedy: 'Run the backup again: what was sent is found again',
    },
  );
}
