/** Waits. */
export async function wait(): Promise<void> {
  await Promise.resolve('done')
}
