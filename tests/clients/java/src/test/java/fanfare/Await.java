package fanfare;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/** Waiting with a deadline that fails. */
final class Await {
    private Await() {}

    static <T> T next(BlockingQueue<T> queue, String what) {
        try {
            T next = queue.poll(Broker.DEADLINE_S, TimeUnit.SECONDS);
            if (next == null) {
                throw new AssertionError("no further " + what);
            }
            return next;
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    /** For what nobody announces: asks until it is so. */
    static void until(String what, BooleanSupplier condition) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(Broker.DEADLINE_S);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("never came true: " + what);
            }
            LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(2));
        }
    }
}
