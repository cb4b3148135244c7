import com.aliyun.mns.client.AsyncResult;
import com.aliyun.mns.common.ServiceException;
import java.util.Objects;

/** What the tests say of values and refusals. */
final class Check {
    private Check() {}

    static void equal(String what, Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + " is " + got + ", not " + wanted);
        }
    }

    static void is(boolean so, String what) {
        if (!so) {
            throw new AssertionError("it is not so: " + what);
        }
    }

    static ServiceException fails(String code, Runnable call) {
        try {
            call.run();
        } catch (ServiceException refused) {
            equal("the code", refused.getErrorCode(), code);
            is(refused.getRequestId() != null && !refused.getRequestId().isEmpty(), "a refusal has a request id");
            return refused;
        }
        throw new AssertionError(code + ": it did not fail");
    }

    /** The result of a call that does not wait. */
    static <T> T later(AsyncResult<T> result) {
        T value = result.getResult(10_000);
        if (!result.isSuccess()) {
            throw new AssertionError(result.getException());
        }
        return value;
    }

    static void failsLater(String code, AsyncResult<?> result) {
        result.getResult(10_000);
        is(!result.isSuccess() && result.getException() instanceof ServiceException, "it is refused: " + code);
        equal("the code", ((ServiceException) result.getException()).getErrorCode(), code);
    }
}
