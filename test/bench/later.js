/** Moves the wall clock of a Node process seven hours ahead, so that the hour just written is due for retention. */
const now = Date.now
Date.now = () => now() + 7 * 3_600_000
