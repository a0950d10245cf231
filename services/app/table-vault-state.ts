import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { Point } from '#contract/points.ts';
import { isoTime } from '#contract/time.ts';
import { isFinal } from '#domain/job.ts';
import type { JsonObject, TableAction, TableItem, TableKey } from '#ports/table.ts';
import { INDEX_HEADER_BYTES, indexPacksLength, readIndexedPacks } from '#repository/index-segment.ts';
import { packKey } from '#repository/names.ts';
import { pointKey, readPointFacts } from '#repository/point.ts';
import { vaultPrefix } from '#repository/prefix.ts';
import type { Commit, Generation, Session, VaultState } from '#repository/state.ts';
import { freshIds, type TenantContext } from './context.ts';
import { changing, toItem } from './records.ts';
import type { Services } from './services.ts';
import { type JobRecord, type Stores, stores } from './stores.ts';
import { vaultPublicKey } from './vaults.ts';

/** Packs looked up at once before a commit. */
const HEADS_AT_ONCE = 16;

const stateItem = z.object({
  epoch: z.number().int(),
  minCommitEpoch: z.number().int(),
  generation: z.object({
    number: z.number().int(),
    segments: z.array(z.object({ key: z.string(), sizeBytes: z.number().int() })),
  }),
});
type State = z.infer<typeof stateItem>;
const EMPTY: State = { epoch: 0, minCommitEpoch: 0, generation: { number: 0, segments: [] } };

const sessionItem = z.object({
  id: idSchema('session'),
  job: idSchema('job'),
  token: z.number().int(),
  startEpoch: z.number().int(),
  status: z.enum(['open', 'ended']),
  leaseUntilMs: z.number(),
});
type SessionItem = z.infer<typeof sessionItem>;

/** Whose vault, and the job in whose name sessions are opened. */
export interface VaultScope extends TenantContext {
  readonly vault: Id<'vault'>;
  readonly job: Id<'job'>;
}

/**
 * The vault's mutable state in the Table: one item for epoch and generation, one per machine for its session.
 *
 * Commit writes the point's object first and then runs one transaction {session open and its token, job not
 * ended, generation + segments, point item}. The transaction is the commit: readers that have a control plane
 * trust the Table alone. A crash before it leaves an object that nobody lists and that the collector removes
 * before it sweeps packs, so whoever reads the bare bucket meanwhile finds a point whose packs are all there
 * still. The other order could leave a committed point without its object, which a bare bucket cannot recover.
 */
export class TableVaultState implements VaultState {
  readonly #services: Services;
  readonly #scope: VaultScope;
  readonly #stores: Stores;

  constructor(services: Services, scope: VaultScope) {
    this.#services = services;
    this.#scope = scope;
    this.#stores = stores(services.table);
  }

  async generation(): Promise<Generation> {
    return (await this.#state()).value.generation;
  }

  /** `holder` is not looked at: the job is the holder, and a later session of the same job ends its earlier one. */
  async openSession(machine: Id<'machine'>, _holder: string): Promise<Session> {
    const { clock, random, settings, table } = this.#services;
    const id = freshIds(clock, random).make('session');
    return changing(async () => {
      const state = await this.#state();
      const found = await this.#session(machine);
      if (isDone((await this.#stores.jobs.get(this.#scope, this.#scope.job)).value)) throw fenced();
      const now = clock.nowMs();
      if (found?.value.status === 'open' && found.value.job !== this.#scope.job && found.value.leaseUntilMs > now) {
        throw new HoldfastError('busy', `Job ${found.value.job} is backing this machine up`, {
          remedy: `Wait for it to end; if it is dead, its lease ends at ${isoTime(found.value.leaseUntilMs)}`,
          retryable: true,
        });
      }
      const session: SessionItem = {
        id,
        job: this.#scope.job,
        token: (found?.value.token ?? 0) + 1,
        startEpoch: state.value.epoch,
        status: 'open',
        leaseUntilMs: now + settings.sessionLeaseSeconds * 1000,
      };
      // The epoch must still be the one recorded when the session becomes visible to the collector.
      await table.transact([unchanged(this.#stateKey(), state.item), put(this.#sessionKey(machine), session, found)]);
      return { id, machine, startEpoch: session.startEpoch, token: session.token, generation: state.value.generation };
    });
  }

  async renew(session: Session): Promise<void> {
    const { clock, settings, table } = this.#services;
    await changing(async () => {
      const found = await this.#open(session);
      const leaseUntilMs = clock.nowMs() + settings.sessionLeaseSeconds * 1000;
      await table.transact([put(this.#sessionKey(session.machine), { ...found.value, leaseUntilMs }, found)]);
    });
  }

  async commit(session: Session, commit: Commit): Promise<void> {
    const point = await this.#checkPoint(session, commit);
    if (await this.#isCommitted(point)) return;
    await this.#open(session);
    await this.#checkSegments(commit);
    await this.#writePoint(commit);
    await changing(async () => {
      if (await this.#isCommitted(point)) return;
      const [state, job, found] = [
        await this.#state(),
        await this.#stores.jobs.get(this.#scope, this.#scope.job),
        await this.#open(session),
      ];
      if (found.value.startEpoch < state.value.minCommitEpoch || isDone(job.value)) throw fenced();
      const generation = {
        number: state.value.generation.number + 1,
        segments: [...state.value.generation.segments, ...commit.segments],
      };
      await this.#services.table.transact([
        put(this.#stateKey(), { ...state.value, generation }, state.item && { version: state.item.version }),
        put(this.#sessionKey(session.machine), { ...found.value, status: 'ended' }, found),
        this.#stores.points.insert(this.#scope, point.id, point),
        this.#stores.machinePoints.insert(this.#scope, `${point.machine}/${point.id}`, point),
        this.#stores.jobs.replace(this.#scope, job.value.id, { ...job.value, committedPoint: point.id }, job.version),
      ]);
    });
  }

  async abandon(session: Session): Promise<void> {
    await changing(async () => {
      const found = await this.#session(session.machine);
      if (found?.value.status !== 'open' || found.value.id !== session.id || found.value.token !== session.token)
        return;
      await this.#services.table.transact([
        put(this.#sessionKey(session.machine), { ...found.value, status: 'ended' }, found),
      ]);
    });
  }

  /** The action that ends the job's open session on the machine, for the transaction that ends the job; none if it has none. */
  async fence(machine: Id<'machine'>): Promise<TableAction | undefined> {
    const found = await this.#session(machine);
    if (found?.value.status !== 'open' || found.value.job !== this.#scope.job) return undefined;
    return put(this.#sessionKey(machine), { ...found.value, status: 'ended' }, found);
  }

  async #checkPoint(session: Session, commit: Commit): Promise<Point> {
    const { vault, job } = this.#scope;
    const facts = readPointFacts(commit.point, await vaultPublicKey(this.#services, vault));
    if (
      facts.vault !== vault ||
      facts.machine !== session.machine ||
      commit.pointKey !== pointKey(facts.machine, facts.point)
    ) {
      throw new HoldfastError('protocol', 'The point is of another vault or machine, or its key does not fit it');
    }
    return {
      id: facts.point,
      machine: facts.machine,
      vault,
      job,
      createdAt: isoTime(facts.takenAtMs),
      key: commit.pointKey,
      objectBytes: commit.point.length,
      disks: facts.disks.map((disk) => ({ sizeBytes: disk.sizeBytes })),
    };
  }

  async #checkSegments(commit: Commit): Promise<void> {
    for (const segment of commit.segments) {
      const head = await this.#services.blobs.head(vaultPrefix(this.#scope.vault) + segment.key);
      if (head?.sizeBytes !== segment.sizeBytes) {
        throw new HoldfastError('missing', `The index segment ${segment.key} is not in the vault as it was announced`);
      }
      await this.#checkPacks(segment);
    }
  }

  /** What a proxy says it has sent must be there: a point whose packs never arrived would be found out at its restore. */
  async #checkPacks({ key, sizeBytes }: Commit['segments'][number]): Promise<void> {
    const prefix = vaultPrefix(this.#scope.vault);
    const range = async (length: number) =>
      Buffer.from(await this.#services.blobs.getRange(prefix + key, 0, Math.min(length, sizeBytes)));
    const packs = readIndexedPacks(await range(indexPacksLength(await range(INDEX_HEADER_BYTES))));
    for (let at = 0; at < packs.length; at += HEADS_AT_ONCE) {
      await Promise.all(
        packs.slice(at, at + HEADS_AT_ONCE).map(async (pack) => {
          const head = await this.#services.blobs.head(prefix + packKey(pack.id));
          if (head?.sizeBytes === pack.sizeBytes) return;
          throw new HoldfastError('missing', `${packKey(pack.id)} is not in the vault as ${key} says`, {
            remedy: 'Run the backup again: what is there is not sent again',
          });
        }),
      );
    }
  }

  async #writePoint(commit: Commit): Promise<void> {
    const { blobs } = this.#services;
    const key = vaultPrefix(this.#scope.vault) + commit.pointKey;
    if ((await blobs.putIfAbsent(key, [commit.point])) === 'created') return;
    const written = await blobs.get(key);
    if (written === undefined || !Buffer.from(commit.point).equals(written.content)) {
      throw new HoldfastError('exists', `Another point is stored under ${commit.pointKey}`, {
        remedy: 'Commit under a new id',
      });
    }
  }

  async #isCommitted(point: Point): Promise<boolean> {
    const found = await this.#stores.points.find(this.#scope, point.id);
    if (found === undefined) return false;
    if (found.value.job !== point.job) throw new HoldfastError('exists', `Point ${point.id} belongs to another job`);
    return true;
  }

  async #open(session: Session): Promise<{ value: SessionItem; version: number }> {
    const found = await this.#session(session.machine);
    const { value } = found ?? {};
    if (
      found === undefined ||
      value?.id !== session.id ||
      value.token !== session.token ||
      value.status !== 'open' ||
      value.job !== this.#scope.job
    ) {
      throw fenced();
    }
    return found;
  }

  async #session(machine: Id<'machine'>): Promise<{ value: SessionItem; version: number } | undefined> {
    const item = await this.#services.table.get(this.#sessionKey(machine));
    return item && { value: sessionItem.parse(item.value), version: item.version };
  }

  async #state(): Promise<{ value: State; item: TableItem | undefined }> {
    const item = await this.#services.table.get(this.#stateKey());
    return { value: item === undefined ? EMPTY : stateItem.parse(item.value), item };
  }

  #stateKey(): TableKey {
    return { partition: `${this.#scope.tenant}#vault-state`, sort: this.#scope.vault };
  }

  #sessionKey(machine: Id<'machine'>): TableKey {
    return { partition: `${this.#scope.tenant}#sessions`, sort: machine };
  }
}

function put(key: TableKey, value: object, read: { readonly version: number } | undefined): TableAction {
  const item: JsonObject = toItem(value);
  return read === undefined
    ? { put: key, value: item, ifAbsent: true }
    : { put: key, value: item, ifVersion: read.version };
}

/** A job makes one point: one that has ended, or made its point, opens nothing and commits nothing more. */
function isDone(job: JobRecord): boolean {
  return isFinal(job.state) || job.committedPoint !== undefined;
}

function unchanged(key: TableKey, item: TableItem | undefined): TableAction {
  return item === undefined ? { check: key, ifAbsent: true } : { check: key, ifVersion: item.version };
}

function fenced(): HoldfastError {
  return new HoldfastError(
    'fenced',
    'The session was ended, by its job’s end or by a later session on the same machine',
    {
      remedy: 'Run the backup again: what was sent is found again',
    },
  );
}
