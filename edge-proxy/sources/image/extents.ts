import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { connectNbd, type NbdOptions } from '../../nbd/client.ts';
import { STATE } from '../../nbd/protocol.ts';
import type { Extent, NbdAddress } from '../disk.ts';

/** Extents kept of one disk; more are joined over their smallest gaps. 1 Mi of them take about 60 MB. */
const EXTENTS_MAX = 1024 * 1024;
const FIRST_GAP_BYTES = 64 * 1024;

/** Collects ranges in ascending order, joining neighbours, and beyond the limit also near ones. */
export class ExtentList {
  #extents: { offset: number; length: number }[] = [];
  #gapBytes = 0;
  readonly #max: number;

  constructor(max = EXTENTS_MAX) {
    this.#max = max;
  }

  add(offset: number, length: number): void {
    if (length <= 0) return;
    const last = this.#extents.at(-1);
    if (last && offset <= last.offset + last.length + this.#gapBytes) {
      last.length = Math.max(last.length, offset + length - last.offset);
      return;
    }
    this.#extents.push({ offset, length });
    while (this.#extents.length > this.#max) this.#thin();
  }

  get extents(): readonly Extent[] {
    return this.#extents;
  }

  /** Reading a few zeros more is cheaper than remembering every small hole. */
  #thin(): void {
    this.#gapBytes = Math.max(FIRST_GAP_BYTES, this.#gapBytes * 2);
    const before = this.#extents;
    this.#extents = [];
    for (const { offset, length } of before) this.add(offset, length);
  }
}

/**
 * The size of an export, and the ranges that `base:allocation` does not declare to read as zeros. Without such a
 * context, or if the server cannot tell, `allocated` is absent: read everything.
 */
export async function nbdExtents(
  address: NbdAddress,
  options: NbdOptions = {},
): Promise<{ readonly sizeBytes: number; readonly allocated?: readonly Extent[] }> {
  const context = 'base:allocation';
  await using client = await connectNbd(address, { ...options, contexts: [context] });
  const { sizeBytes } = client;
  if (!client.contexts.includes(context)) return { sizeBytes };
  const list = new ExtentList();
  try {
    for await (const { offset, length, flags } of client.blockStatus(context, 0, sizeBytes)) {
      if (options.signal?.aborted)
        throw new HoldfastError('cancelled', 'Looking for the allocated ranges was cancelled');
      // A hole need not read as zeros; only the zero bit promises that.
      if ((flags & STATE.zero) === 0) list.add(offset, length);
    }
  } catch (cause) {
    if (isHoldfastError(cause, 'unreadable') && !cause.retryable) return { sizeBytes };
    throw cause;
  }
  return { sizeBytes, allocated: list.extents };
}
