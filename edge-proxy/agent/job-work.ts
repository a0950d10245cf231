import type { Outcome } from '#contract/jobs.ts';
import { type Task, vaultResponse } from '#contract/proxy-protocol.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { decodeKeys } from '#repository/keys.ts';
import { openBox } from '#repository/sealed-box.ts';
import type {
  BackupDisk,
  BackupRequest,
  BackupResult,
  EngineContext,
  OpenVault,
  Progress,
  RestoreRequest,
  RestoreResult,
} from '../engine/request.ts';
import type { FileTarget } from '../engine/restore/restore-image.ts';
import type { ControlPlane } from './control-plane.ts';
import { GrantBlobs } from './grant-blobs.ts';
import type { HttpClient } from './http-client.ts';
import type { Identity } from './identity.ts';
import type { Patience } from './patience.ts';
import { RemoteVaultState } from './remote-vault-state.ts';

/** A disk of an image source, open for one backup. */
export type OpenImage = Omit<BackupDisk, 'name'> & AsyncDisposable;

/** The parts that do the work; tests hand in doubles. */
export interface Engine {
  readonly runBackup: (request: BackupRequest, context: EngineContext) => Promise<BackupResult>;
  readonly restoreToFile: (
    request: Omit<RestoreRequest, 'target'>,
    target: FileTarget,
    context: EngineContext,
  ) => Promise<RestoreResult>;
  readonly openImage: (path: string, signal: AbortSignal) => Promise<OpenImage>;
}

export interface WorkDependencies {
  readonly plane: ControlPlane;
  readonly http: HttpClient;
  readonly identity: Identity;
  readonly clock: Clock;
  readonly random: Random;
  readonly engine: Engine;
  readonly cacheDir: string;
  /** For single objects. */
  readonly patience: Patience;
}

/** Does what a task says and answers what came of it. Whatever it opened is closed when it ends. */
export async function performTask(
  deps: WorkDependencies,
  task: Task,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Outcome> {
  const vault = await openVault(deps, task, signal);
  const context: EngineContext = {
    clock: deps.clock,
    random: deps.random,
    holder: task.job,
    signal,
    onProgress,
    cacheDir: deps.cacheDir,
    ...(task.bytesPerSecond === undefined ? {} : { bytesPerSecond: task.bytesPerSecond }),
  };
  return task.work.kind === 'backup' ? backUp(deps, task, vault, context, signal) : restore(deps, task, vault, context);
}

async function backUp(
  deps: WorkDependencies,
  task: Task,
  vault: OpenVault,
  context: EngineContext,
  signal: AbortSignal,
): Promise<Outcome> {
  await using images = new AsyncDisposableStack();
  const disks: BackupDisk[] = [];
  for (const { name, path } of task.machine.disks) {
    const image = images.use(await deps.engine.openImage(path, signal));
    const { locator, sizeBytes, allocated } = image;
    disks.push({ name, locator, sizeBytes, ...(allocated === undefined ? {} : { allocated }) });
  }
  const { id, name } = task.machine;
  const result = await deps.engine.runBackup({ vault, machine: { id, name }, disks }, context);
  return {
    kind: 'backup',
    point: result.point,
    pointKind: result.kind,
    disks: result.disks.map((disk) => ({ ...disk })),
    stats: JSON.parse(JSON.stringify(result.stats)),
  };
}

async function restore(deps: WorkDependencies, task: Task, vault: OpenVault, context: EngineContext): Promise<Outcome> {
  if (task.work.kind !== 'restore') throw new TypeError('not a restore');
  const { machine, point, diskIndex, target, rollback } = task.work;
  const result = await deps.engine.restoreToFile({ vault, machine, point, diskIndex, rollback }, target, context);
  return {
    kind: 'restore',
    point: result.point,
    diskIndex: result.diskIndex,
    sizeBytes: result.sizeBytes,
    stats: JSON.parse(JSON.stringify(result.stats)),
  };
}

async function openVault(deps: WorkDependencies, task: Task, signal: AbortSignal): Promise<OpenVault> {
  const { plane, http, clock, random, identity, patience } = deps;
  const { vault, sealedKeys } = await plane.get(`/v1/proxy/jobs/${task.job}/vault`, vaultResponse, { signal });
  return {
    id: vault,
    blobs: new GrantBlobs({ plane, http, clock, random, job: task.job, signal, patience }),
    state: new RemoteVaultState(plane, task.job, signal),
    keys: decodeKeys(openBox(identity.sealPrivateKey, Buffer.from(sealedKeys, 'base64'), vault)),
  };
}
