/** Moves the wall clock of a Node process by CLOCK_SHIFT_MS; monotonic time is left alone. */
const now = Date.now
const shift = Number(process.env.CLOCK_SHIFT_MS)
Date.now = () => now() + shift
