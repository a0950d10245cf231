import type { Id } from '#contract/ids.ts';

/**
 * The vault's small mutable state: which index segments are live, which sessions are open, what the
 * collector has decided. Everything else in a vault is immutable.
 *
 * Implementations: {@link ./blob-state.ts} (an object changed by compare-and-swap, for a vault used
 * without a control plane), the control plane's (Table items), and the proxy's (calls to the API).
 */
export interface VaultState {
  /** The set of live index segments now. */
  generation(): Promise<Generation>;
  /**
   * Opens a session pinned to the current generation. One session a machine: throws `busy` while
   * another holder's session on the same machine is open and its lease runs.
   */
  openSession(machine: Id<'machine'>, holder: string): Promise<Session>;
  /** Extends the session's lease; throws `fenced` if it was ended. */
  renew(session: Session): Promise<void>;
  /**
   * Ends the session by making the point exist, in one step that either happens whole or not at all:
   * the session is open, its token matches, its epoch is not fenced → segments join the generation,
   * the point is written. Throws `fenced`; asked twice with the same point, answers like the first time.
   */
  commit(session: Session, commit: Commit): Promise<void>;
  /** Ends the session without a point. */
  abandon(session: Session): Promise<void>;
}

/** A set of live index segments, by object key relative to the vault. */
export interface Generation {
  readonly number: number;
  readonly segments: readonly SegmentRef[];
}

export interface SegmentRef {
  readonly key: string;
  readonly sizeBytes: number;
}

/** A writer's lease on a generation. */
export interface Session {
  readonly id: Id<'session'>;
  readonly machine: Id<'machine'>;
  readonly startEpoch: number;
  /** Fencing token. */
  readonly token: number;
  readonly generation: Generation;
}

export interface Commit {
  readonly segments: readonly SegmentRef[];
  readonly pointKey: string;
  /** The signed point, see docs/format.md. */
  readonly point: Uint8Array;
}
