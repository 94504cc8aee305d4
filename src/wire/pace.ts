import { setTimeout as sleep } from 'node:timers/promises'

/** Lets at most so many things begin within any minute, in the order in which they came. */
export class Pace {
  private readonly perMinute: number
  private readonly begun: number[] = []
  private turn: Promise<void> = Promise.resolve()

  constructor(perMinute: number) {
    this.perMinute = perMinute
  }

  /** Waits for its turn. Rejects when the signal aborts. */
  wait(signal: AbortSignal): Promise<void> {
    const mine = this.turn.then(() => this.take(signal))
    this.turn = mine.catch(() => undefined)
    return mine
  }

  private async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.begun.length >= this.perMinute) {
      const waitMs = this.begun.shift()! + 60_000 - performance.now()
      if (waitMs > 0) await sleep(waitMs, undefined, { signal })
    }
    this.begun.push(performance.now())
  }
}
