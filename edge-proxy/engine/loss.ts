import { type ErrorCode, HoldfastError } from '#contract/errors.ts';

/** What an object of the vault can be that no longer gives what was put into it. */
const LOSSES: readonly ErrorCode[] = ['damaged', 'missing', 'wrong-key', 'format-too-new'];

/**
 * True if the vault has lost something, as opposed to a store that cannot be reached: then another copy, another
 * point or the rest of the vault may still be sound.
 */
export function isLoss(error: unknown): error is HoldfastError {
  return error instanceof HoldfastError && LOSSES.includes(error.code);
}
