/**
 * Gives a large buffer's memory back now instead of at some later garbage collection, which knows little of
 * memory outside its heap. The buffer must not be used again by anybody. Small buffers share a pool and stay.
 */
export function freeBuffer(buffer: Uint8Array): void {
  const memory = buffer.buffer;
  if (memory instanceof ArrayBuffer && memory.byteLength > Buffer.poolSize * 2) memory.transfer(0);
}
