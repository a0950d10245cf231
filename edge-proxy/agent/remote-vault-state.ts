import { z } from 'zod';
import type { Id } from '#contract/ids.ts';
import { generationSchema, sessionSchema } from '#contract/proxy-protocol.ts';
import type { Commit, Generation, Session, VaultState } from '#repository/state.ts';
import type { ControlPlane } from './control-plane.ts';

const empty = z.object({});

/** The vault's state as the control plane keeps it, in the name of one job. */
export class RemoteVaultState implements VaultState {
  readonly #plane: ControlPlane;
  readonly #path: string;
  readonly #signal: AbortSignal | undefined;

  constructor(plane: ControlPlane, job: Id<'job'>, signal?: AbortSignal) {
    this.#plane = plane;
    this.#path = `/v1/proxy/jobs/${job}`;
    this.#signal = signal;
  }

  generation(): Promise<Generation> {
    return this.#plane.get(`${this.#path}/generation`, generationSchema, { signal: this.#signal });
  }

  /** Asked twice, because an answer was lost, it ends the first session and answers the second. */
  openSession(machine: Id<'machine'>, holder: string): Promise<Session> {
    return this.#plane.post(`${this.#path}/sessions`, { machine, holder }, sessionSchema, { signal: this.#signal });
  }

  async renew(session: Session): Promise<void> {
    await this.#plane.post(this.#of(session, 'renew'), refOf(session), empty, { signal: this.#signal });
  }

  async commit(session: Session, commit: Commit): Promise<void> {
    const body = {
      ...refOf(session),
      segments: commit.segments,
      pointKey: commit.pointKey,
      point: Buffer.from(commit.point).toString('base64'),
    };
    await this.#plane.post(this.#of(session, 'commit'), body, empty, { signal: this.#signal });
  }

  /** Tried briefly, and not at all by a job that was interrupted: a session ends with its job at the latest. */
  async abandon(session: Session): Promise<void> {
    if (this.#signal?.aborted) return;
    const patience = { firstWaitMs: 100, maxWaitMs: 1000, totalMs: 2000 };
    await this.#plane.post(this.#of(session, 'abandon'), refOf(session), empty, { patience });
  }

  #of(session: Session, act: string): string {
    return `${this.#path}/sessions/${session.id}/${act}`;
  }
}

function refOf(session: Session) {
  return { machine: session.machine, token: session.token };
}
